"""How the network is executed fast: the one place for code that exists for a platform's speed or memory.

Nothing here changes what the network computes beyond rounding. `models/` and `models/t5/` state the mathematics; they
call these modules for attention (`attention`), products and sums (`products`), the stack of layers (`layer_stack`) and
the logits (`chunked_logits`).
"""
