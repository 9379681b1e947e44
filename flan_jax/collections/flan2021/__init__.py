"""FLAN 2021: 70 datasets, ten ways of asking about each, the tasks and mixtures that the paper makes of them."""
