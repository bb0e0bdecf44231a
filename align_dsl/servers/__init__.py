"""What a server offers, and whether the answers of a model behind it can be trusted.

`offer` asks servers what they have. `examine` asks one model the questions of every probe and
turns what happens, failures included, into findings. Nothing is contacted but loopback and what
somebody named, and nothing here is used while a program runs.
"""
