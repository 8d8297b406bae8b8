"""`atlas completion bash|zsh|fish`: scripts that complete commands and flags, made from the parser itself."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.commands.parts import command
from gateway.commands.terminal import DONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.commands.parts import Commands
    from gateway.commands.terminal import Terminal

_DESCRIPTION = """Print a script that completes atlas's commands and flags.

  bash   atlas completion bash > ~/.local/share/bash-completion/completions/atlas
  zsh    atlas completion zsh > ~/.zfunc/_atlas        (with ~/.zfunc in fpath, before compinit)
  fish   atlas completion fish > ~/.config/fish/completions/atlas.fish"""


@dataclass(frozen=True, slots=True)
class Place:
    """What can follow `path`, the commands typed so far: (word, what it is) of commands, choices and flags."""

    path: str
    words: tuple[tuple[str, str], ...]
    values: tuple[tuple[str, tuple[str, ...]], ...]


def add(commands: Commands, root: argparse.ArgumentParser) -> None:
    """The command; it describes everything below `root`."""

    def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
        terminal.show(SHELLS[arguments.shell](list(_places(root, ""))))
        return DONE

    parser = command(commands, "completion", "print a script of completions", run, description=_DESCRIPTION)
    parser.add_argument("shell", choices=sorted(SHELLS), help="the shell that it is for")


def _places(parser: argparse.ArgumentParser, path: str) -> Iterator[Place]:
    """A place for each parser, the outermost first."""
    words: list[tuple[str, str]] = []
    values: list[tuple[str, tuple[str, ...]]] = []
    below: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:  # noqa: SLF001  argparse has no public way to look at a parser
        choices = tuple(map(str, action.choices or ()))
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            about = {each.dest: each.help or "" for each in action._choices_actions}  # noqa: SLF001
            words += [(name, about.get(name, "")) for name in choices]
            below += [(name, action.choices[name]) for name in choices]
        elif action.option_strings:
            longest = max(action.option_strings, key=len)
            words.append((longest, _plain(action.help or "")))
            if choices:
                values.append((longest, choices))
        else:
            words += [(name, "") for name in choices]
    yield Place(path, tuple(words), tuple(values))
    for name, inner in below:
        yield from _places(inner, f"{path} {name}".strip())


def _plain(text: str) -> str:
    """A help text without what stands for its default."""
    return re.sub(r"\s*\(default: %\(default\)s\)", "", text)


def _bash(places: list[Place]) -> str:
    known = "|".join(f'"{place.path}"' for place in places if place.path)
    cases = "".join(f'    "{place.path}") words="{" ".join(word for word, _ in place.words)}" ;;\n' for place in places)
    values = "".join(
        f'    "{place.path} {flag}") words="{" ".join(choices)}" ;;\n'
        for place in places
        for flag, choices in place.values
    )
    return f"""# bash completion of atlas
_atlas() {{
  local here="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" place="" next word words=""
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    next="${{place:+$place }}$word"
    case "$next" in {known}) place="$next" ;; esac
  done
  case "$place" in
{cases}  esac
  case "$place $before" in
{values}  esac
  COMPREPLY=($(compgen -W "$words" -- "$here"))
}}
complete -o default -F _atlas atlas
"""


def _zsh(places: list[Place]) -> str:
    known = "|".join(f"'{place.path}'" for place in places if place.path)
    cases = "".join(
        f"    ('{place.path}') found=({' '.join(_described(word, about) for word, about in place.words)}) ;;\n"
        for place in places
    )
    values = "".join(
        f"    ('{place.path} {flag}') found=({' '.join(choices)}) ;;\n"
        for place in places
        for flag, choices in place.values
    )
    return f"""#compdef atlas
_atlas() {{
  local place='' next word
  local -a found
  for word in ${{words[2,CURRENT-1]}}; do
    next="${{place:+$place }}$word"
    case $next in ({known}) place=$next ;; esac
  done
  case $place in
{cases}  esac
  case "$place ${{words[CURRENT-1]}}" in
{values}  esac
  _describe 'atlas' found || _files
}}
compdef _atlas atlas
"""


def _described(word: str, about: str) -> str:
    text = f"{word}:{about}".replace("'", "")
    return f"'{text}'"


def _fish(places: list[Place]) -> str:
    known = " ".join(f"'{place.path}'" for place in places if place.path)
    lines = [
        "# fish completion of atlas",
        "function __atlas_place",
        "    set -l place ''",
        "    for word in (commandline -opc)[2..-1]",
        '        set -l next (string trim -- "$place $word")',
        f"        if contains -- $next {known}",
        "            set place $next",
        "        end",
        "    end",
        '    test "$place" = "$argv[1]"',
        "end",
    ]
    for place in places:
        for word, about in place.words:
            what = f"-l {word[2:]}" if word.startswith("--") else f"-f -a {word}"
            given = next((f" -x -a '{' '.join(choices)}'" for flag, choices in place.values if flag == word), "")
            quoted = about.replace("\\", "").replace("'", "")
            lines.append(f"complete -c atlas -n \"__atlas_place '{place.path}'\" {what}{given} -d '{quoted}'")
    return "\n".join(lines) + "\n"


SHELLS: dict[str, Callable[[list[Place]], str]] = {"bash": _bash, "fish": _fish, "zsh": _zsh}
