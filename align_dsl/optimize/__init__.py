"""Search the settings of a decider, and say honestly what that was good for.

space     what may vary, read off the program       trial     configuration -> rights and wrongs
propose   what was tried -> what to try next        study     what was tried, kept for good
search    the loop: propose, claim, try, keep       choose    which of all that was tried
aims      accuracy, its costs and their limits      page      a study as one HTML page
verdict   the one look at the test cases            artefact  the winner as a program file
workers   other processes in the same search        stock     DSPy's own optimizers, in its place
reword    other wordings, proposed by a model       author    who writes them, one text at a time
"""
