"""Pretraining tasks: span corruption and prefix LM on plain text."""
