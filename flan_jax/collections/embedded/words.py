"""The words of the embedded suite: plain tables, and the slots of sentence frames.

The tables are tuples and insertion-ordered dictionaries, because the random choices depend on their order.
"""

# Tables with many words per line.
# fmt: off

NAMES = (
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ida", "Jonas",
    "Kate", "Leo", "Maria", "Noah", "Olga", "Paul", "Rosa", "Simon", "Tina", "Victor",
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)
TIMES_OF_DAY = ("morning", "afternoon", "evening")
PLACES = (
    "kitchen", "garden", "office", "cellar", "attic", "station", "market", "park",
    "museum", "harbour", "bridge", "square", "tower", "castle", "forest", "river",
)
ROOMS = ("kitchen", "garden", "office", "cellar", "attic", "hallway", "bedroom", "bathroom", "garage", "pantry")
THINGS = ("cup", "book", "lamp", "bag", "box", "key", "letter", "basket", "bottle", "blanket", "radio", "clock")
COLORS = ("red", "blue", "green", "yellow", "white", "black", "brown", "purple")
RELATIVES = ("aunt", "uncle", "cousin", "sister", "brother", "neighbour", "teacher", "friend")

# The slots that any frame may name, in addition to a task's own.
SLOTS = {
    "name": NAMES,
    "day": DAYS,
    "month": MONTHS,
    "time": TIMES_OF_DAY,
    "place": PLACES,
    "room": ROOMS,
    "thing": THINGS,
    "colour": COLORS,
    "relative": RELATIVES,
}

# --- sentiment, and the held-out feedback ------------------------------------------------------------------------
PRAISE = (
    "wonderful", "excellent", "delightful", "charming", "brilliant", "lovely",
    "superb", "pleasant", "great", "amazing", "perfect", "fantastic",
)
BLAME = (
    "awful", "terrible", "boring", "dreadful", "horrible", "poor",
    "disappointing", "dull", "nasty", "miserable", "hopeless", "dismal",
)
FILM_PARTS = ("story", "acting", "music", "ending", "dialogue", "costume", "design", "humour")
DISHES = ("soup", "pasta", "salad", "cake", "bread", "curry", "rice", "pie", "fish", "sauce")
PRODUCTS = ("kettle", "camera", "bicycle", "tent", "printer", "phone", "toaster", "mattress")
SERVICES = ("delivery", "repair", "helpline", "website", "booking", "cleaning", "parking", "reception")
EMOTIONS = {
    "joy": ("laughed", "smiled", "cheered", "danced about", "felt happy", "felt delighted", "was glad"),
    "anger": ("shouted", "growled", "stamped", "felt furious", "felt angry", "was annoyed", "was outraged"),
    "fear": ("trembled", "hid", "felt scared", "felt afraid", "was frightened", "was terrified", "fled"),
    "sadness": ("cried", "wept", "sighed", "felt sad", "felt lonely", "was heartbroken", "mourned"),
}
EVENTS = (
    "the letter came", "the music began", "the lights went out", "the train left", "the door opened",
    "the guests arrived", "the news was read", "the dog came home", "the game was over", "the phone rang",
)

# --- topic -------------------------------------------------------------------------------------------------------
HEADLINE_TOPICS = {
    "sport": ("match", "team", "goal", "coach", "race", "player", "trophy"),
    "weather": ("storm", "rain", "snow", "wind", "fog", "sunshine", "thunder"),
    "business": ("bank", "company", "profit", "price", "factory", "loan", "salary"),
    "science": ("planet", "experiment", "telescope", "laboratory", "fossil", "atom", "vaccine"),
}
HOBBIES = {
    "music": ("piano", "guitar", "violin", "drum", "flute", "trumpet", "song"),
    "cooking": ("oven", "recipe", "pan", "whisk", "stew", "grill", "dough"),
    "gardening": ("spade", "rake", "hedge", "greenhouse", "tulip", "lawn", "compost"),
    "painting": ("brush", "canvas", "portrait", "easel", "palette", "sketch", "landscape"),
}
DEPARTMENTS = {
    "clothing": ("shirt", "coat", "scarf", "glove", "sock", "jacket", "belt"),
    "toys": ("doll", "kite", "puzzle", "teddy", "robot", "ball", "marble"),
    "furniture": ("sofa", "table", "chair", "wardrobe", "shelf", "desk", "bench"),
    "stationery": ("pen", "pencil", "notebook", "ruler", "eraser", "envelope", "crayon"),
}
CITIES = ("Leeds", "Lyon", "Turin", "Porto", "Bergen", "Graz", "Malaga", "Bremen", "Kyoto", "Boston")

# --- grammar -----------------------------------------------------------------------------------------------------
PLURALS = {
    "cat": "cats", "box": "boxes", "child": "children", "mouse": "mice", "foot": "feet", "baby": "babies",
    "leaf": "leaves", "tooth": "teeth", "goose": "geese", "man": "men", "woman": "women", "knife": "knives",
    "bus": "buses", "city": "cities", "book": "books", "tree": "trees", "horse": "horses", "lady": "ladies",
    "dish": "dishes", "flower": "flowers", "wolf": "wolves", "boat": "boats", "ox": "oxen",
}
PAST_TENSES = {
    "walk": "walked", "go": "went", "eat": "ate", "sit": "sat", "run": "ran", "ride": "rode", "write": "wrote",
    "sing": "sang", "swim": "swam", "stand": "stood", "come": "came", "draw": "drew", "speak": "spoke",
    "fly": "flew", "teach": "taught", "think": "thought", "play": "played", "jump": "jumped",
    "dance": "danced", "cook": "cooked", "paint": "painted", "sleep": "slept", "drive": "drove",
}
WORD_CLASSES = {
    "noun": ("apple", "teacher", "window", "village", "mountain", "doctor", "engine", "candle", "island", "pillow"),
    "verb": ("carry", "borrow", "explain", "repair", "follow", "forget", "arrive", "promise", "collect", "decide"),
    "adjective": ("gentle", "polite", "famous", "hungry", "nervous", "clever", "honest", "patient", "curious", "lazy"),
}

# --- word meaning ------------------------------------------------------------------------------------------------
OPPOSITE_PAIRS = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("happy", "sad"), ("light", "dark"), ("early", "late"),
    ("hard", "soft"), ("full", "empty"), ("wet", "dry"), ("open", "closed"), ("loud", "quiet"), ("high", "low"),
    ("strong", "weak"), ("clean", "dirty"), ("near", "far"), ("long", "short"), ("wide", "narrow"),
    ("deep", "shallow"), ("thick", "thin"), ("cheap", "expensive"),
)
OPPOSITES = {**dict(OPPOSITE_PAIRS), **{second: first for first, second in OPPOSITE_PAIRS}}
KINDS = {
    "animal": ("lion", "rabbit", "camel", "otter", "tiger", "donkey", "squirrel"),
    "fruit": ("banana", "cherry", "lemon", "peach", "melon", "mango", "pear"),
    "tool": ("hammer", "saw", "drill", "screwdriver", "wrench", "chisel", "axe"),
    "vehicle": ("lorry", "tram", "scooter", "tractor", "ferry", "van", "taxi"),
}
YOUNG_ANIMALS = {
    "cat": "kitten", "dog": "puppy", "cow": "calf", "horse": "foal", "sheep": "lamb", "goat": "kid",
    "pig": "piglet", "duck": "duckling", "hen": "chick", "lion": "cub", "swan": "cygnet", "frog": "tadpole",
    "goose": "gosling", "deer": "fawn", "kangaroo": "joey", "eagle": "eaglet", "owl": "owlet",
    "butterfly": "caterpillar",
}

# --- knowledge ---------------------------------------------------------------------------------------------------
CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "Portugal": "Lisbon",
    "Greece": "Athens", "Austria": "Vienna", "Poland": "Warsaw", "Norway": "Oslo", "Sweden": "Stockholm",
    "Finland": "Helsinki", "Denmark": "Copenhagen", "Ireland": "Dublin", "Hungary": "Budapest",
    "Japan": "Tokyo", "China": "Beijing", "Egypt": "Cairo", "Kenya": "Nairobi", "Peru": "Lima",
    "Canada": "Ottawa", "Russia": "Moscow", "Turkey": "Ankara", "Iceland": "Reykjavik",
}
LANGUAGES = {
    "France": "French", "Italy": "Italian", "Mexico": "Spanish", "Germany": "German", "Brazil": "Portuguese",
    "Greece": "Greek", "Poland": "Polish", "Norway": "Norwegian", "Sweden": "Swedish", "Finland": "Finnish",
    "Denmark": "Danish", "Hungary": "Hungarian", "Japan": "Japanese", "China": "Chinese", "Egypt": "Arabic",
    "Russia": "Russian", "Turkey": "Turkish", "Australia": "English",
}
WORKPLACES = {
    "nurse": "hospital", "baker": "bakery", "farmer": "farm", "librarian": "library", "actor": "theatre",
    "judge": "court", "sailor": "ship", "miner": "mine", "waiter": "restaurant", "priest": "church",
    "chemist": "pharmacy", "mechanic": "workshop", "banker": "bank", "zookeeper": "zoo", "pilot": "airport",
    "professor": "university", "hairdresser": "salon", "gardener": "nursery",
}

# --- numbers and time --------------------------------------------------------------------------------------------
NUMBERS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)
DIGITS = {word: str(value) for value, word in enumerate(NUMBERS, start=1) if value > 1} | {
    "thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70", "eighty": "80", "ninety": "90",
}
COUNTED = ("apples", "stamps", "coins", "stones", "tickets", "shells", "buttons", "eggs", "cards", "bricks")
# Days from today to the requested day, which each frame expresses in its own words.
DAY_FRAMES = {
    -1: (
        "Today is {today}; {name} came back yesterday with the {thing}.",
        "It is {today}, and yesterday my {relative} was at the {place}.",
        "This {today} {time} {name} is tired, for yesterday there was a party.",
        "Yesterday {name} lost a {colour} {thing}, and today is {today}.",
    ),
    1: (
        "Today is {today}; {name} goes away tomorrow with the {thing}.",
        "It is {today}, and tomorrow my {relative} will be at the {place}.",
        "This {today} {time} {name} is busy, for tomorrow there is a party.",
        "Tomorrow {name} will get a {colour} {thing}, and today is {today}.",
    ),
}

# --- rewriting ---------------------------------------------------------------------------------------------------
PAST_FORMS = {
    "works": "worked", "waits": "waited", "sings": "sang", "sleeps": "slept", "reads": "read", "eats": "ate",
    "plays": "played", "walks": "walked", "dances": "danced", "writes": "wrote", "swims": "swam", "cooks": "cooked",
}
DONE_TO = ("visited", "called", "helped", "met", "thanked", "followed", "invited", "painted")

# --- reading, and the held-out inference -------------------------------------------------------------------------
GIFTS = ("cake", "scarf", "kite", "chair", "table", "poem", "song", "necklace", "sandwich", "painting")
MADE = ("made", "bought", "found", "repaired", "chose", "wrapped")
SUPPORTS = ("table", "shelf", "chair", "desk", "bench", "stool", "sofa", "carpet")
SYNONYMS = {
    "big": "large", "small": "little", "fast": "quick", "quiet": "silent", "sad": "unhappy", "wet": "damp",
    "strong": "powerful", "loud": "noisy",
}
