"""The one exception whose message is written for the person at the keyboard."""


class FewbitsError(Exception):
    """What was wrong, what was expected, what to do; the command line prints it without a traceback."""
