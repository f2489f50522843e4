"""The one exception for everything a user can mend."""


class MatineeError(Exception):
    """A user's mistake or a broken surrounding, told in one sentence: what, where, what to do.

    The command line prints the sentence without a traceback and exits with status 1; any other
    exception is a defect of matinee and keeps its traceback.
    """
