"""The one class of errors that a user can act on; every other exception is a defect of the program."""


class SteError(ValueError):
    """A user error: wrong input, settings, files or environment.

    The command line prints its message as one line without a traceback. The message names the place and the
    remedy and may be reworded at any time; programs and tests compare the code.

    Attributes:
      code: stable identifier in snake case, such as "file_not_found".
    """

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code

    def __reduce__(self):
        return type(self), (self.code, str(self))
