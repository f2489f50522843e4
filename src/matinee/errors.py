"""Errors that the user can fix, and the end of a training by a signal."""


class MatineeError(Exception):
    """An error that the user can fix, reported in one sentence: what is wrong, where, and what to do.

    The command line prints the sentence without a traceback and exits with status 1. Any other exception
    is a bug of matinee and keeps its traceback.

    Attributes:
        located: Whether the sentence begins with the config path of the part that raised it.
    """

    located = False


class Diverged(MatineeError, ValueError):  # noqa: N818 - the name says what happened
    """Training diverged: a loss or a score is not finite."""


class NotWritten(MatineeError):  # noqa: N818 - the name says what happened
    """A file could not be written; an earlier file of that name is untouched.

    Args:
        what: The file and the reason.
        then: What to do after disk space is free.
    """

    def __init__(self, what: str, then: str = "start it again") -> None:
        super().__init__(what, then)  # both, so that it can be pickled for another process
        self.what = what
        self.then = then

    def __str__(self) -> str:
        return f"{self.what}; free disk space, then {self.then}."


class Refitted(MatineeError):  # noqa: N818 - the name says what happened
    """A run was trained on all of its data, and has no metrics of its own."""


class AtWork(MatineeError):  # noqa: N818 - the name says what happens
    """Another process works on a run folder."""


class Stopped(Exception):  # noqa: N818 - not an error
    """A signal ended a training that can be resumed.

    Args:
        command: The command that continues it.
        status: The exit status that the signal requires.
    """

    def __init__(self, command: str, status: int) -> None:
        super().__init__(command, status)  # both, so that it can be pickled for another process
        self.command = command
        self.status = status

    def __str__(self) -> str:
        return f"stopped; continue with {self.command}."
