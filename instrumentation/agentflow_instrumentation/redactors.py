"""What is taken out of texts before they go out: secrets that can be recognised, and what redactors of the user's find.

A redactor is a callable `redact(text, where) -> text`. `where` says what the text is: the attribute, and behind it
the names of the fields that lead to it, such as "gen_ai.tool.call.arguments.customer.phone".
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Redactor = Callable[[str, str], str]

HIDDEN = "**********"

_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----"
    r".*?(?:-----END [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
_HYPHENATED = re.compile(
    r"\b(?:(?:sk|pk|rk)-[\w-]{12,}|(?:glpat|nvapi|pplx|tvly|xai)-[\w-]{16,}|xox[abeprs]-[A-Za-z0-9-]{10,}"
    r"|xapp-\d-[A-Za-z0-9-]{10,}|gldt-[\w-]{16,}|GOCSPX-[\w-]{16,}|pypi-AgE[\w-]{16,})"
)
_UNDERSCORED = re.compile(
    r"\b(?:(?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{8,}|gh[opusr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
    r"|(?:hf|gsk|r8|npm|whsec|shpat|dop_v1|lsv2_[a-z]{2}|pcsk|dckr_pat)_\w{20,})"
)
_CAPITAL = re.compile(r"A(?:(?<=\bA)[KS]IA[0-9A-Z]{12,}|(?<=\bA)Iza[\w-]{30,})")
_JWT = re.compile(r"eyJ(?<=\beyJ)[\w-]{8,}\.(?:[\w-]{8,}|\.[\w-]{8,})(?:\.[\w-]*){0,3}")
_DOTTED = re.compile(r"\b(?:SG\.[\w-]{16,}\.[\w-]{16,}|hvs\.[\w-]{20,}|ya29\.[\w-]{20,})")
_HOOK = re.compile(r"((?:hooks\.slack\.com|discord(?:app)?\.com/api/webhooks)/)[\w/-]+", re.IGNORECASE)
_SCHEME = re.compile(
    r"(authorization\W{1,20}(?:bearer|basic)\s{1,4}"
    # elsewhere the next word may be a word
    r"|\bbearer\s{1,4}(?=[\w.~+/=-]{8})(?-i:(?=\w[a-z]*[A-Z0-9_~+/=]))"
    r"|\bbasic\s{1,4}(?=[\w+/]{12})(?-i:(?=\w[a-z]*[A-Z0-9+/=])))[\w.~+/=-]+",
    re.IGNORECASE,
)
_NAME = (
    r"api[ _-]?key|ac(?:cess|count)[ _-]?key|private[ _-]?key|secret(?:[ _-]?key)?|s(?:igning|ubscription)[ _-]?key"
    r"|encryption[ _-]?key|pass(?:word|wd|phrase)|pwd|authorization|auth[_-]?token|access[_-]?token|refresh[_-]?token"
)
_NAMED = re.compile(
    rf"((?:{_NAME})(?:\\{{0,16}}[\"'])?\s{{0,8}}[:=]\s{{0,8}})(?!\\{{0,16}}[\"']?(?:bearer|basic)\s)"
    # until the quote that began it, be it in JSON inside a string of JSON, or else one word
    r"(?:b?(\\{0,16}[\"'])(?:(?!(?<!\\)\2)[^\n])+|(?:digest|hawk|aws4-[\w-]{1,32})\s[^\n]+"
    r"|(?:(?:token|api-?key|key|negotiate|ntlm|dpop)\s{1,4})?[^\s\"',;&}\\]{4,})",
    re.IGNORECASE,
)
_OPTION = re.compile(
    rf"(--(?<![\w-]--)(?!-)(?:[a-z0-9]{{1,16}}-){{0,3}}(?:{_NAME}|token)\s{{1,4}})(?![-\"'])[^\s\"',;]{{4,}}",
    re.IGNORECASE,
)
_COOKIE = re.compile(
    r"(cookie(?:\\{0,16}[\"'])?\s{0,8}:\s{0,8}(?:\\{0,16}[\"'])?)[\w.-]{1,64}=[^\n\"'\\]+", re.IGNORECASE
)
_TOKEN = re.compile(r"(token(?:\\{0,16}[\"'])?\s{0,8}[:=]\s{0,8}(?:\\{0,16}[\"'])?)[\w.~+/=-]{16,}", re.IGNORECASE)
_LOGIN = re.compile(r"(://)[^\s/@:]{0,256}:[^\s/\"']{1,1024}(?=@)")
_QUERY = re.compile(
    r"([?&;](?:[\w-]{0,32}(?:key|token|sig|signature|secret|password|pwd|credential)|auth|jwt|code|sid|session_?id)=)"
    r"[^\s&\"'<>#\\]{4,}",
    re.IGNORECASE,
)
# no version of a package, no attribute in code; the user `git` of a server is no person
_DOMAIN = r"@(?!v?\d+\.\d|self\.|cls\.)(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?!\w)"
_MAIL_HOST = re.compile(_DOMAIN)
_MAIL = re.compile(rf"(?<![\w.%+-])(?!git@)[\w.%+-]{{1,64}}{_DOMAIN}")
_CARD = re.compile(r"[2-6]\d{3}(?<![\w.-]\d{4})(?:([ -]?)\d{4}(?:\1\d{4}){2}|([ -]?)\d{6}\2\d{5})(?![\w-])")
_ISSUERS = re.compile(r"4|5[1-5]|2[2-7]|6011|65|3[457]")
_FEWEST_DIGITS = 15
_NO_DIGITS = bytes(set(range(256)) - set(b"0123456789"))

# What these find stands in every text in which the patterns above find something: most texts have none of it, and a
# pattern that begins with a fixed letter is ten times faster, a word a hundred times.
_HYPHEN_SIGN = re.compile(
    r"-(?=[\w-]{10})(?:(?<=sk-)|(?<=pk-)|(?<=rk-)|(?<=glpat-)|(?<=nvapi-)|(?<=pplx-)|(?<=tvly-)|(?<=xai-)|(?<=xox.-)"
    r"|(?<=xapp-)|(?<=gldt-)|(?<=GOCSPX-)|(?<=pypi-))"
)
_UNDERSCORE_SIGN = re.compile(r"_[A-Za-z0-9]{14}")
_IS = r"(?:\\{0,16}[\"'])?\s{0,8}[:=]"
_KEYS = ("api", "ss", "nt", "te", "et", "ng", "on")
_NAMED_SIGNS = (
    ("secret", re.compile(rf"secret{_IS}")),
    ("passw", re.compile(rf"passw(?:or)?d{_IS}")),
    ("pwd", re.compile(rf"pwd{_IS}")),
    ("passphrase", re.compile(rf"passphrase{_IS}")),
    ("authorization", re.compile(rf"authorization{_IS}")),
    ("key", re.compile(rf"key(?:{'|'.join(f'(?<={end}key)|(?<={end}.key)' for end in _KEYS)}){_IS}")),
)
_TOKEN_SIGN = re.compile(rf"token{_IS}")

_UNSEEN = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
_WITHOUT_UNSEEN = dict.fromkeys(map(ord, _UNSEEN))


def masked(text: str) -> str:
    """The text without what can be recognised as a secret, as an e-mail address or as the number of a credit card."""
    if not text.isascii() and any(sign in text for sign in _UNSEEN):
        bare = text.translate(_WITHOUT_UNSEEN)
        shown = _masked(bare)
        if shown != bare:
            return shown
    return _masked(text)


def _masked(text: str) -> str:
    folded = text.casefold()
    text = _keys(text)
    if "hook" in folded:
        text = _HOOK.sub(rf"\g<1>{HIDDEN}", text)
    if "bearer" in folded or "basic" in folded:
        text = _SCHEME.sub(rf"\g<1>{HIDDEN}", text)
    if ":" in text or "=" in text:
        text = _named(text, folded)
    return _personal(text)


def _keys(text: str) -> str:
    """Without what is secret by its own form."""
    if "-" in text:
        if "-----BEGIN " in text:
            text = _PEM.sub(HIDDEN, text)
        if _HYPHEN_SIGN.search(text):
            text = _HYPHENATED.sub(HIDDEN, text)
        if "--" in text:
            text = _OPTION.sub(rf"\g<1>{HIDDEN}", text)
    if "_" in text and _UNDERSCORE_SIGN.search(text):
        text = _UNDERSCORED.sub(HIDDEN, text)
    if "eyJ" in text:
        text = _JWT.sub(HIDDEN, text)
    if "A" in text:
        text = _CAPITAL.sub(HIDDEN, text)
    if "SG." in text or "hvs." in text or "ya29." in text:
        text = _DOTTED.sub(HIDDEN, text)
    return text


def _personal(text: str) -> str:
    """Without e-mail addresses and numbers of credit cards."""
    if "@" in text and _MAIL_HOST.search(text):
        text = _MAIL.sub(HIDDEN, text)
    if len(text) < _FEWEST_DIGITS:
        return text
    if len(text.encode("utf-8", "replace").translate(None, _NO_DIGITS)) >= _FEWEST_DIGITS:
        text = _CARD.sub(_card, text)
    return text


def _named(text: str, folded: str) -> str:
    """Without the values of what is named like a secret, and without logins in addresses."""
    if "://" in text and "@" in text:
        text = _LOGIN.sub(rf"\g<1>{HIDDEN}", text)
    tokens = "token" in folded and _TOKEN_SIGN.search(folded)
    if tokens or any(word in folded and sign.search(folded) for word, sign in _NAMED_SIGNS):
        text = _NAMED.sub(_value, text)
    if tokens:
        text = _TOKEN.sub(rf"\g<1>{HIDDEN}", text)
    if "cookie" in folded:
        text = _COOKIE.sub(rf"\g<1>{HIDDEN}", text)
    if "=" in text and ("?" in text or "&" in text):
        text = _QUERY.sub(rf"\g<1>{HIDDEN}", text)
    return text


def _value(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2] or ''}{HIDDEN}"


def _card(found: re.Match[str]) -> str:
    """A number is a card's where it begins like one and its check digit is right (Luhn)."""
    if not _ISSUERS.match(found[0]):
        return found[0]
    digits = [int(one) for one in found[0] if one not in " -"]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return found[0] if (sum(digits[-1::-2]) + sum(doubled)) % 10 else HIDDEN


_FIELD = re.compile(rf"{_NAME}|^(?:set-)?cookies?$|^pass$|credentials?$", re.IGNORECASE)
_TOKEN_FIELD = re.compile(r"token$", re.IGNORECASE)
_OPAQUE = re.compile(r"[\w.~+/=-]{16,}\Z")
_FIELD_OF_ALL = re.compile(rf"(?:{_NAME}|^(?:set-)?cookie)s?$", re.IGNORECASE)


def is_secret_text(name: str, text: str) -> bool:
    """Is a text secret because the field that it stands in is called so? What streams is called "token", too."""
    if _FIELD.search(name) is not None:
        return True
    return _TOKEN_FIELD.search(name) is not None and _OPAQUE.match(text) is not None


def is_secret_field(name: str) -> bool:
    """Is a number, are bytes or the items of a list secret because of the name of their field?"""
    return _FIELD_OF_ALL.search(name) is not None


def pattern(regex: str | re.Pattern[str], replacement: str = HIDDEN) -> Redactor:
    r"""A redactor that replaces what matches, wherever it stands: `pattern(r"\bCUST-\d+\b")`.

    `replacement` may have references to groups, as `re.sub` knows them. Raises `re.error` for a pattern that is none.
    """
    compiled = re.compile(regex)

    def redact(text: str, where: str) -> str:  # noqa: ARG001 because a pattern holds wherever it matches
        return compiled.sub(replacement, text)

    return redact


def checked(redactors: Iterable[Redactor]) -> tuple[Redactor, ...]:
    """The redactors, in their order. Raises `TypeError` where one can't be called with a text and where it stands."""
    given: object = redactors
    if callable(given) or isinstance(given, str):
        msg = f"redactors={given!r} is not a list. Write redactors=[...]."
        raise TypeError(msg)
    made = tuple(redactors)
    for one in made:
        if inspect.iscoroutinefunction(one):
            msg = f"redactors=[{one!r}]: it is called in line, and can't be async. Write: def redact(text, where): ..."
            raise TypeError(msg)
        if not _takes_two(one):
            msg = (
                f"redactors=[{one!r}]: a redactor takes a text and where it stands, and returns the text as it may go "
                "out: def redact(text: str, where: str) -> str. For a regular expression, write "
                'agentflow_instrumentation.redactors.pattern(r"...").'
            )
            raise TypeError(msg)
    return made


def _takes_two(redactor: object) -> bool:
    if not callable(redactor):
        return False
    try:
        inspect.signature(redactor).bind("", "")
    except TypeError:
        return False
    except ValueError:  # a builtin that does not say what it takes
        return True
    return True
