"""What a batch script says of itself: its #SBATCH lines.

They are read as sbatch does it (src/sbatch/opt.c, alike in Slurm 22.05 to 24.11; where releases differ, the line is
refused), so that an option is refused in a script by the same words as on the command line.

The one rule: a script is never changed. sbatch reads it again, and what it finds there it does as the person.
"""

from collections.abc import Iterator

from labstead.errors import BadInput

_BLANKS = " \t\n\v\f\r"
"""What isspace(3) takes for a blank."""
_MAGIC = ("#SBATCH", "#SLURM")
_COMPONENTS = ("hetjob", "packjob")
_MOST_WORDS = 1024
_MOST_LETTERS = 8 * 1024
"""Characters of a #SBATCH line."""


def decoded(content: bytes) -> str:
    """Give the text of a script.

    :raises BadInput: when it is not one that Slurm would take
    """
    if not content.strip():
        raise BadInput("the script is empty")
    if not content.startswith(b"#!"):
        raise BadInput("the script does not begin with #! and the path of a shell, such as #!/bin/sh")
    if b"\0" in content:
        raise BadInput("the script has a NUL character in it")
    if b"\r\n" in content:
        raise BadInput("the script has DOS line breaks; `sed -i 's/\\r$//' FILE` mends that")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise BadInput("the script is not UTF-8") from None


def _lines(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1


def header(text: str) -> list[str]:
    """Give the words of a script's #SBATCH lines, in their order.

    :raises BadInput: when sbatch could not read them, or not in one way
    """
    words: list[str] = []
    for number, line in enumerate(_lines(text), start=1):
        magic = next((magic for magic in _MAGIC if line.startswith(magic)), None)
        if magic is not None:
            try:
                words += _words(line[len(magic) :])
            except BadInput as error:
                raise BadInput(f"line {number} of the script: {error}") from None
            if len(words) > _MOST_WORDS:
                raise BadInput(f"the script's #SBATCH lines have more than {_MOST_WORDS} words")
        elif line.strip(_BLANKS) and not line.lstrip(_BLANKS).startswith("#"):
            break
    return words


def _words(text: str) -> Iterator[str]:
    if len(text) > _MOST_LETTERS:
        raise BadInput(f"more than {_MOST_LETTERS} characters")
    while True:
        text = text.lstrip(_BLANKS)
        if any(text[: len(name)].lower() == name and not text[len(name) :][:1].strip() for name in _COMPONENTS):
            raise BadInput("heterogeneous jobs are not passed on from a session")
        if text.startswith(":"):
            raise BadInput("unexpected `:`")
        word, text = _word(text)
        if word is None:
            return
        yield word


def _word(text: str) -> tuple[str | None, str]:
    """Take the first word off a text; None: there is none, as a comment or an empty pair of quotes follows."""
    letters: list[str] = []
    quote = ""
    position = 0
    while position < len(text):
        letter = text[position]
        if not quote and letter in _BLANKS:
            break
        if not quote and letter == "#":
            break
        position += 1
        if letter == "\\":
            following = text[position : position + 1]
            if not following or following in _BLANKS:
                raise BadInput("a backslash before a blank is read differently by releases of Slurm; use quotes")
            position += 1
            letters.append(following)
        elif quote and letter == quote:
            quote = ""
        elif not quote and letter in "\"'":
            quote = letter
        else:
            letters.append(letter)
    if quote:
        raise BadInput(f"unmatched {quote}")
    return "".join(letters) or None, text[position:]


def is_dask(text: str, runner: str) -> bool:
    """Tell whether a script starts a worker of Dask.

    :param runner: path of `in-image`
    """
    return f"\n{runner} --dask " in text
