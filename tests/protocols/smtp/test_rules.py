"""What SMTP servers refuse, rule by rule, without a server."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidestage.protocols.smtp import rules
from sidestage.protocols.smtp.rules import Command, Refused, Sender

MIB = 1 << 20


def refusal(line: bytes, *, extended: bool = True) -> Refused:
    with pytest.raises(Refused) as caught:
        rules.command(line, extended=extended)
    return caught.value


def sender(argument: str, *, extended: bool = True) -> Sender:
    return rules.sender(argument, extended=extended, size_limit=MIB)


def recipient(argument: str, *, utf8: bool = False) -> str:
    return rules.recipient(argument, extended=True, utf8=utf8)


# Command lines ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, command",
    [
        (b"EHLO me\r\n", Command("EHLO", "me")),
        (b"ehlo me  \r\n", Command("EHLO", "me")),
        (b"DATA \r\n", Command("DATA", "")),
        (b"NOOP any thing\r\n", Command("NOOP", "any thing")),
        (b"MAIL from:<a@x>\r\n", Command("MAIL", "from:<a@x>")),
        ("MAIL FROM:<ü@x>\r\n".encode(), Command("MAIL", "FROM:<ü@x>")),
        (b"NOOP\n", Command("NOOP", "")),
    ],
)
def test_a_line_is_a_verb_and_an_argument(line: bytes, command: Command) -> None:
    assert rules.command(line, extended=True) == command


@pytest.mark.parametrize(
    "line, reply",
    [
        (b"\r\n", "500"),
        (b" EHLO me\r\n", "500"),
        (b"BOGUS\r\n", "500"),
        (b"\xff\xff\r\n", "500"),
        (b"EH\0LO me\r\n", "500"),
        (b"EHLO\r\n", "501"),
        (b"HELO  \r\n", "501"),
        (b"MAIL\r\n", "501"),
        (b"VRFY\r\n", "501"),
        (b"QUIT now\r\n", "501"),
        (b"RSET x\r\n", "501"),
        (b"DATA x\r\n", "501"),
        (b"MAIL FROM:<a\0b@x>\r\n", "501"),
        (b"MAIL FROM:<a@x>\r\r\n", "501"),
        (b"EHLO \xff\r\n", "501"),
        (b"EXPN list\r\n", "502"),
        (b"STARTTLS\r\n", "502"),
        (b"AUTH PLAIN AGEAYg==\r\n", "502"),
    ],
)
def test_what_is_no_command_gets_the_reply_of_the_rfc(line: bytes, reply: str) -> None:
    refused = refusal(line)
    assert refused.reply.startswith(f"{reply} 5.5.")
    assert not refused.last


@pytest.mark.parametrize(
    "verb, extended, limit", [("NOOP", True, 512), ("MAIL", False, 512), ("MAIL", True, 565)]
)
def test_a_line_may_be_as_long_as_the_rfc_says(verb: str, extended: bool, limit: int) -> None:
    line = f"{verb} ".encode().ljust(limit - 2, b"x") + b"\r\n"
    assert rules.command(line, extended=extended).verb == verb
    assert refusal(b"%b%b" % (line[:-2], b"x\r\n"), extended=extended).reply.startswith("500 5.5.2")


@pytest.mark.parametrize(
    "line, named",
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", "TLS"),
        (b"GET / HTTP/1.1\r\n", "HTTP"),
        (b"POST /a?b HTTP/1.0\r\n", "HTTP"),
    ],
)
def test_another_protocol_is_named_and_ends_the_session(line: bytes, named: str) -> None:
    refused = refusal(line)
    assert refused.last
    assert refused.reply.startswith("554 ")
    assert named in refused.reply


@pytest.mark.parametrize(
    "verb, greeted, sender, recipients",
    [
        ("MAIL", False, False, False),
        ("RCPT", False, False, False),
        ("DATA", False, False, False),
        ("MAIL", True, True, False),
        ("RCPT", True, False, False),
        ("DATA", True, False, False),
        ("DATA", True, True, False),
    ],
)
def test_a_command_out_of_order_is_a_503(
    verb: str, greeted: bool, sender: bool, recipients: bool
) -> None:
    with pytest.raises(Refused, match=rf"^503 5\.5\.1 {verb} ") as caught:
        rules.check_order(verb, greeted=greeted, sender=sender, recipients=recipients)
    assert not caught.value.last


@pytest.mark.parametrize("verb", sorted(rules.VERBS - {"MAIL", "RCPT", "DATA"}))
def test_the_other_commands_have_no_order(verb: str) -> None:
    rules.check_order(verb, greeted=False, sender=False, recipients=False)


def test_help_names_the_commands_and_their_syntax() -> None:
    assert rules.help_on("") == "214 Commands: DATA EHLO HELO HELP MAIL NOOP QUIT RCPT RSET VRFY"
    assert rules.help_on("mail") == "214 Syntax: MAIL FROM:<address>"
    assert rules.help_on("DATA") == "214 Syntax: DATA"
    with pytest.raises(Refused, match=r"^504 "):
        rules.help_on("EXPN")


# Addresses -------------------------------------------------------------------------------------

TAKEN = {  # what is sent, and the address
    "<a@x>": "a@x",
    "<A.b+c@X.Example>": "A.b+c@X.Example",
    '<"a b"@x>': '"a b"@x',
    '<"a"@x>': '"a"@x',
    r'<"a\"<>@b"@x>': r'"a\"<>@b"@x',
    "<a..b.@x>": "a..b.@x",
    "<a@[127.0.0.1]>": "a@[127.0.0.1]",
    "<a@[IPv6:::1]>": "a@[IPv6:::1]",
    "<a@[ipv6:2001:db8::1]>": "a@[ipv6:2001:db8::1]",
    "<a@[x-tag:content]>": "a@[x-tag:content]",
    "<@relay.example:a@x>": "a@x",
    "<@one,@two.example:a@x>": "a@x",
    "<postmaster>": "postmaster",
    "<Postmaster@x>": "Postmaster@x",
    " <a@x>": "a@x",
    "a@x": "a@x",
    "me": "me",
    '"a b"@x': '"a b"@x',
    "<a@my_host>": "a@my_host",
    "<!#$%&'*+-/=?^_`{|}~@x>": "!#$%&'*+-/=?^_`{|}~@x",
}


@pytest.mark.parametrize("sent", TAKEN)
def test_an_address_is_taken_as_it_was_sent(sent: str) -> None:
    assert sender(f"FROM:{sent}") == Sender(TAKEN[sent], (), False)
    assert recipient(f"TO:{sent}") == TAKEN[sent]
    assert recipient(f"to:{sent} ") == TAKEN[sent]


def test_a_bounce_has_no_sender_and_no_mail_is_without_a_recipient() -> None:
    assert sender("FROM:<>").address == ""
    with pytest.raises(Refused, match=r"^553 5\.1\.3 "):
        recipient("TO:<>")


@pytest.mark.parametrize(
    "sent",
    ["", "<", ">", "<a@x", "a@x>", "<a@[", "<<a@x>>", "<a@x>b", "<a@x>SIZE=1", '<"a@x>', "a<b@x>"],
)
def test_what_is_no_path_is_a_501(sent: str) -> None:
    for call in (lambda: sender(f"FROM:{sent}"), lambda: recipient(f"TO:{sent}")):
        with pytest.raises(Refused, match=r"^501 5\.5\.4 "):
            call()


@pytest.mark.parametrize("argument", ["", "<a@x>", "a@x", "FROM <a@x>", "FROM :<a@x>", "from"])
def test_what_is_no_from_or_to_is_a_501(argument: str) -> None:
    for call in (lambda: sender(argument), lambda: recipient(argument)):
        with pytest.raises(Refused, match=r"^501 5\.5\.4 "):
            call()


@pytest.mark.parametrize(
    "address",
    [
        "@", "a@", "@x", "a@b@c", "a b@x", " ", "a@x ", "a(c)@x", "a@x.", "a@.x", "a@x..y", "a@-x",
        "a@x-", "a@[", "a@[]", "a@[300.1.1.1]", "a@[1.2.3]", "a@[IPv6:1]", "a@[1.2.3.4]x",
        "a@[a b]", "@relay:", "@relay", "@relay,b:a@x", 'a"b"@x', '"a"b@x', r"a\b@x", "a,b@x",
        "a:b@x", "a@b,c",
    ],
)  # fmt: skip
def test_what_is_no_address_is_a_553(address: str) -> None:
    with pytest.raises(Refused, match=r"^553 5\.1\.7 "):
        sender(f"FROM:<{address}>")
    with pytest.raises(Refused, match=r"^553 5\.1\.3 "):
        recipient(f"TO:<{address}>")


def test_more_than_ascii_needs_smtputf8() -> None:
    assert sender("FROM:<jürgen@köln.example> SMTPUTF8").address == "jürgen@köln.example"
    assert recipient("TO:<ü@ö>", utf8=True) == "ü@ö"
    with pytest.raises(Refused, match=r"^553 5\.6\.7 .*SMTPUTF8"):
        sender("FROM:<jürgen@köln.example>")
    with pytest.raises(Refused, match=r"^553 5\.6\.7 .*SMTPUTF8"):
        recipient("TO:<ü@ö>")


# Parameters ------------------------------------------------------------------------------------


def test_parameters_are_known_in_any_case() -> None:
    found = sender("FROM:<a@x> size=4 body=8bitmime  smtputf8")
    assert found == Sender("a@x", ("SIZE=4", "BODY=8BITMIME", "SMTPUTF8"), True)


@pytest.mark.parametrize(
    "parameters, reply",
    [
        ("SIZE=1048576", ""),
        ("SIZE=1048577", "552 5.3.4"),
        ("SIZE", "501"),
        ("SIZE=", "501"),
        ("SIZE=x", "501"),
        ("SIZE=٣", "501"),
        ("SIZE=" + "1" * 21, "501"),
        ("SIZE=1 size=1", "501"),
        ("BODY=BINARYMIME", "501"),
        ("BODY", "501"),
        ("SMTPUTF8=yes", "501"),
        ("=x", "501"),
        ("-X=1", "501"),
        ("X=a=b", "501"),
        ("AUTH=<>", "555"),
        ("X-UNKNOWN", "555"),
        ("RET=HDRS", "555"),
    ],
)
def test_what_is_wrong_with_parameters(parameters: str, reply: str) -> None:
    if not reply:
        assert sender(f"FROM:<a@x> {parameters}").parameters == (parameters,)
        return
    with pytest.raises(Refused, match=f"^{reply} "):
        sender(f"FROM:<a@x> {parameters}")


def test_recipients_have_no_parameters_and_old_clients_neither() -> None:
    with pytest.raises(Refused, match=r"^555 "):
        recipient("TO:<a@x> NOTIFY=NEVER")
    with pytest.raises(Refused, match=r"^555 "):
        sender("FROM:<a@x> SIZE=1", extended=False)


# Anything --------------------------------------------------------------------------------------

arguments = st.one_of(
    st.text(max_size=40),
    st.text('<>@[]"\\.:, abIPv6=\t()é\x00', max_size=20),
    st.builds("{}{}".format, st.sampled_from(sorted(TAKEN)), st.text(" A=1<>", max_size=6)),
)


@given(arguments, st.booleans(), st.booleans())
@example("<", True, True)
@example("<a@[", True, True)
@example("\udcff", True, True)
def test_any_argument_is_taken_or_refused_for_good(
    argument: str, extended: bool, utf8: bool
) -> None:
    """A taken address is a part of what was sent."""
    parameter = " SMTPUTF8" if utf8 and extended else ""
    for call in (
        lambda: sender(f"FROM:{argument}{parameter}", extended=extended).address,
        lambda: rules.recipient(f"TO:{argument}", extended=extended, utf8=utf8),
    ):
        taken, reply = outcome(call)
        assert taken in f"{argument}{parameter}"
        assert reply[:3] in {"", "501", "552", "553", "555"}


@given(st.binary(max_size=700), st.booleans())
def test_any_line_is_a_command_or_refused(line: bytes, extended: bool) -> None:
    line = line.replace(b"\n", b"") + b"\r\n"
    verb, reply = outcome(lambda: rules.command(line, extended=extended).verb)
    assert verb in rules.VERBS | {""}
    assert reply[:3] in {"", "500", "501", "502", "554"}


def outcome(call: Callable[[], str]) -> tuple[str, str]:
    """What ``call`` returns and the reply if it refuses: one line of printable ASCII."""
    try:
        return call(), ""
    except Refused as refused:
        reply = refused.reply
    assert reply.isascii()
    assert reply.isprintable()
    assert len(reply) < 510  # RFC 5321 4.5.3.1.5
    return "", reply
