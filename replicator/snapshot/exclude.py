"""What a dataset leaves out, by patterns in the syntax of ``.gitignore``.

A pattern is matched against the path relative to the dataset's root:

- without a ``/`` in front or in the middle against the last name alone, at any depth: ``*.tmp``, ``node_modules``;
- with one against the whole of it: ``projects/*/build``, and ``/build`` for what lies in the root itself. ``*``, ``?``
  and ``[...]`` never match ``/``; ``**`` stands for any number of folders;
- with ``/`` at its end folders only: ``cache/``;
- with ``!`` in front it includes again. Of several patterns that match, the last one decides.

A pattern that begins with the full path of one of the dataset's roots is taken as that path, and concerns no other
root: ``/home/anna/.cache``. What is in a folder that is left out is not looked at, and so never included again; a root
itself is never left out. Patterns may hold any bytes that a name may.
"""

import re
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from replicator.errors import UsageError

_NOTHING = ("", "/")


class _Rule(NamedTuple):
    search: Callable[[str], re.Match[str] | None]
    leaves_out: bool
    folders_only: bool
    by_name: bool


class Excludes:
    """Patterns made ready for one root; matches nothing if there are none.

    ``roots`` are all of the dataset's, ``root`` among them or not.

    Raises:
        UsageError: a pattern means nothing.
    """

    def __init__(self, patterns: Sequence[bytes | str], root: bytes, roots: Sequence[bytes] = ()) -> None:
        here = [_below(_text(pattern), _text(root), [_text(one) for one in (root, *roots)]) for pattern in patterns]
        self._rules = [_rule(pattern) for pattern in reversed(here) if pattern is not None]
        self._by_name = all(rule.by_name for rule in self._rules)

    def __bool__(self) -> bool:
        """Whether there is any pattern."""
        return bool(self._rules)

    def match(self, above: bytes, name: bytes, *, folder: bool) -> bool:
        """Return whether a name is left out; ``above`` is what its path below the root has in front of it."""
        last = _text(name)
        whole = last if self._by_name else _text(above + name)
        for rule in self._rules:
            if rule.folders_only and not folder:
                continue
            found = rule.search(last if rule.by_name else whole)
            # The library's one group is the slash behind a folder above that matches. Such a folder has been judged
            # when it was met: here a pattern has to match the name itself, as it has to in Git.
            if found is not None and found.lastgroup is None:
                return rule.leaves_out
        return False


def check_patterns(patterns: Sequence[str], roots: Sequence[bytes]) -> None:
    """See that all patterns can be used for the roots.

    Raises:
        UsageError: one means nothing, or something else than it seems to.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # sets as in [[:alpha:]], which neither library knows
        for root in roots:
            Excludes(patterns, root, roots)


def patterns_in(text: str) -> list[str]:
    """Return the patterns of a file in the syntax of ``.gitignore``, without its comments and empty lines."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _text(name: bytes | str) -> str:
    """Return a name as characters, whatever its bytes are.

    A newline becomes a NUL, which no name holds: to regular expressions, which the library makes, it is no character
    like the others.
    """
    text = name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
    return text.replace("\n", "\0")


def _below(pattern: str, root: str, roots: Sequence[str]) -> str | None:
    """Return a pattern that begins with a root's full path as one relative to it, others as they are.

    None is one for another root, or for the root itself.
    """
    sign, body = ("!", pattern[1:]) if pattern.startswith("!") else ("", pattern)
    if not body.startswith("/"):
        return pattern
    rest = [rest for one in roots if (rest := _behind(body, one)) is not None]
    if not rest:
        return pattern
    own = _behind(body, root)
    return None if own is None or own in _NOTHING else sign + own


def _behind(pattern: str, root: str) -> str | None:
    plain = root.rstrip("/")
    for path in (plain, GitIgnoreSpecPattern.escape(plain)):
        if pattern == path or pattern.startswith(path + "/"):
            return pattern[len(path) :]
    return None


def _rule(pattern: str) -> _Rule:
    plain = pattern if pattern.endswith("\\ ") else pattern.rstrip(" ")
    folders_only = plain.endswith("/")
    if folders_only:
        plain = plain[:-1]  # or the library lets foo/**/ match foo itself
    if plain[-1:].isspace() and plain[-2:-1] != "\\":
        plain = f"{plain[:-1]}[{plain[-1]}]"  # or the library drops it, as Git does only with spaces at the very end
    try:
        made = GitIgnoreSpecPattern(plain)
    except (ValueError, re.error, FutureWarning) as error:
        raise _bad(pattern) from error
    if made.include is None or made.regex is None:
        raise _bad(pattern)
    # In the library's hands a set like [!0-9] matches a slash: logs/app[!0-9]* would leave out logs/app/settings.
    search = re.compile(made.regex.pattern.replace("[^", "[^/")).search
    return _Rule(search, made.include, folders_only, "/" not in plain)


def _bad(pattern: str) -> UsageError:
    return UsageError(
        f"'{pattern}' is no pattern that could match anything",
        hint=r"the syntax is that of .gitignore: put \ before a # or ! in front, before spaces at the end, and before a"
        " [, * or ? that is meant as itself",
    )
