"""The one exception for everything a user can mend."""


class MatineeError(Exception):
    """A user's mistake or a broken surrounding, told in one sentence: what, where, what to do.

    The command line prints the sentence without a traceback and exits with status 1; any other
    exception is a defect of matinee and keeps its traceback.
    """


class Diverged(MatineeError, ValueError):  # noqa: N818 - it says what happened
    """A loss or a score is not finite: training went wrong, with settings that may be tried."""


class AtWork(MatineeError):  # noqa: N818 - it says what happens
    """Another process works on a run folder."""


class Stopped(Exception):  # noqa: N818 - it is no error
    """A signal ended a fit that can be gone on with.

    Args:
        command: What goes on with it.
        status: The exit status that the signal asks for.
    """

    def __init__(self, command: str, status: int) -> None:
        super().__init__(command, status)  # all of them, for another process may have to read it
        self.command = command
        self.status = status

    def __str__(self) -> str:
        return f"stopped; go on with {self.command}."
