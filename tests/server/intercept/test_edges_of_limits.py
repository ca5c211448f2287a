"""How much of everything is read: as much as the limit, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from loragate_server.adapter.reference import AdapterReference
from loragate_server.intercept import routes
from loragate_server.intercept.extraction import RefusedRequestError
from loragate_server.intercept.reading import bodies, lora_files
from loragate_server.intercept.reading.bodies import BodyLimits, parse_json, plain_bytes
from loragate_server.intercept.reading.findings import Found
from loragate_server.intercept.reading.forms import Field, read_form
from loragate_server.intercept.reading.given_names import given_name
from loragate_server.intercept.reading.lora_files import LoraFiles
from loragate_server.intercept.reading.references import checked_text, looks_like_weights
from loragate_server.intercept.reading.sets import MOST_ADAPTERS, by_source
from loragate_server.intercept.reading.strengths import strength_in_text
from loragate_server.intercept.reading.tags import tags_in
from loragate_server.intercept.routes import query_of, query_value
from tests.server.intercept.bodies import BOUNDARY, multipart, post

LIMITS = BodyLimits(1_000_000, 20)
EVERY_PART = "<lora:a:te=1:unet=1:in=1:mid=1:out=1>"
KIND = f"multipart/form-data; boundary={BOUNDARY}"
HEAD_BYTES = 16 * 1024


def form(body: bytes) -> tuple[Field, ...]:
    return read_form(post("/x", body, content_type=KIND), LIMITS)


def part(name: str, head_bytes: int = 0) -> bytes:
    """A part whose head holds so many bytes, names and values together, where it is not less."""
    headers = [("Content-Disposition", f'form-data; name="{name}"')]
    left = head_bytes - sum(map(len, headers[0]))
    while left > 0:
        more = f"X-{len(headers)}"
        headers.append((more, "m" * max(1, min(3000, left - len(more)))))
        left -= sum(map(len, headers[-1]))
    head = "\r\n".join(f"{named}: {value}" for named, value in headers)
    return f"--{BOUNDARY}\r\n{head}\r\n\r\ntext\r\n".encode()


END = f"--{BOUNDARY}--\r\n".encode()


def test_the_head_of_each_part_may_be_as_long_as_the_limit() -> None:
    whole = part("a", HEAD_BYTES) + part("b", HEAD_BYTES) + END
    assert [one.name for one in form(whole)] == ["a", "b"]
    for body in (part("a", HEAD_BYTES + 1) + part("b"), part("a") + part("b", HEAD_BYTES + 1)):
        with pytest.raises(RefusedRequestError, match="too long a head"):
            form(body + END)


def test_a_form_that_is_cut_off_is_told_so() -> None:
    for body in (part("a"), part("a").rstrip(b"\r\n"), part("a") + f"--{BOUNDARY}\r\n".encode()):
        with pytest.raises(RefusedRequestError, match="is cut off"):
            form(body)


def test_an_empty_field_is_a_field() -> None:
    read = form(multipart([{"name": "a", "text": ""}, {"name": "b", "text": "x"}]))
    assert [(one.name, one.text) for one in read] == [("a", ""), ("b", "x")]


def test_a_part_that_ends_with_its_head_is_read_as_empty_or_not_at_all() -> None:
    body = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="a"\r\n\r\n'.encode() + END
    with pytest.raises(RefusedRequestError):
        form(body)


def test_a_query_holds_a_thousand_parameters_and_those_without_a_value_count() -> None:
    assert len(query_of(post("/x?" + "&".join(["a=1"] * 1000)))) == 1000
    with pytest.raises(RefusedRequestError, match="query cannot be read"):
        query_of(post("/x?" + "&".join(["a=1"] * 1001)))
    assert query_value(post("/x?a="), "a") == ""
    assert query_value(post("/x?a=1"), "b") is None
    with pytest.raises(RefusedRequestError):
        query_value(post("/x?a=&a=1"), "a")


def test_a_folder_may_hold_as_many_files_as_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora_files, "_MOST_FILES", 3)
    for number in range(3):
        (tmp_path / f"{number}.safetensors").touch()
    (tmp_path / "notes.txt").touch()
    assert LoraFiles(str(tmp_path)).names == tuple(f"{number}.safetensors" for number in range(3))
    (tmp_path / "3.safetensors").touch()
    with pytest.raises(RefusedRequestError, match="too many files"):
        _ = LoraFiles(str(tmp_path)).names


def test_a_file_that_is_not_there_has_no_given_name(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "other.txt").touch()
    for name in ("gone.safetensors", "text.safetensors", "other.txt"):
        assert given_name(str(tmp_path / name)) == ""


@pytest.mark.parametrize(
    ("text", "looks"),
    [
        ("https://x.example/a.safetensors", True),
        ("https://x.example/a.safetensors?b=1?c", True),
        ("https://x.example/a.safetensors#b", True),
        ("https://x.example/a?b=.safetensors", False),
        ("https://x.example/a", False),
        ("a#b.safetensors", True),
        ("a" * 4084 + ".safetensors", True),
        ("a" * 4085 + ".safetensors", False),
    ],
)
def test_weights_are_known_by_the_end_of_their_path(text: str, looks: bool) -> None:
    assert looks_like_weights(text) is looks


@pytest.mark.parametrize(("count", "read"), [(MOST_ADAPTERS, True), (MOST_ADAPTERS + 1, False)])
def test_what_may_be_left_out_is_told_up_to_the_most_adapters(count: int, read: bool) -> None:
    found = [Found(AdapterReference(path=f"/{n}"), str(n)) for n in range(count)]
    told = by_source(found, [n % 2 for n in range(count)])
    assert {one.reference.optional for one in told} == {read}


def test_a_number_may_have_64_letters() -> None:
    assert strength_in_text("1." + "0" * 62, "/x") == 1.0
    with pytest.raises(RefusedRequestError):
        strength_in_text("1." + "0" * 63, "/x")


@pytest.mark.parametrize(
    "tag", ["<lora:a:1:0>", "<lora:a:1>", "<lora:a:te=1:unet=0>", "<lora:a>", EVERY_PART]
)
def test_a_tag_with_what_a_server_documents_is_read(tag: str) -> None:
    assert [one.name for one in tags_in(tag, "/prompt")] == ["a"]


@pytest.mark.parametrize(
    "tag", ["<lora:a:1:0:1>", "<lora:a:te=1:te=1>", "<lora:a:1:other=1>", "<lora:a:te=1:dyn=4>"]
)
def test_a_tag_with_more_than_that_is_not_measured(tag: str) -> None:
    with pytest.raises(RefusedRequestError):
        list(tags_in(tag, "/prompt"))


@pytest.mark.parametrize("length", ["abc", "1.5", "\u0663", "-1", "1" * 19])
def test_a_length_that_is_no_number_is_refused(length: str) -> None:
    with pytest.raises(RefusedRequestError, match="Content-Length is no number"):
        plain_bytes(post("/x", b"abc", content_length=length), LIMITS)


@pytest.mark.parametrize(("length", "read"), [("3", True), ("", True), ("0" * 17 + "4", False)])
def test_a_body_is_whole_where_as_much_came_as_was_said(length: str, read: bool) -> None:
    request = post("/x", b"abc", content_length=length)
    if read:
        assert plain_bytes(request, LIMITS) == b"abc"
    else:
        with pytest.raises(RefusedRequestError, match="4 bytes, of which 3 came"):
            plain_bytes(request, LIMITS)


def test_a_document_holds_as_many_values_as_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_MAX_VALUES", 5)
    assert parse_json("[1,2,3,4,5]", LIMITS, "It").value == [1, 2, 3, 4, 5]
    with pytest.raises(RefusedRequestError, match="more than 5 values"):
        parse_json("[1,2,3,4,5,6]", LIMITS, "It")


def test_many_lists_side_by_side_are_not_deep() -> None:
    assert parse_json("[[[]],[[]],[[]]]", BodyLimits(100, 3), "It").value == [[[]]] * 3
    with pytest.raises(RefusedRequestError, match="deeper than 3"):
        parse_json("[[[[]]],[[]]]", BodyLimits(100, 3), "It")


def test_a_reference_may_have_4096_letters() -> None:
    assert checked_text("a" * 4096, "/lora") == "a" * 4096
    with pytest.raises(RefusedRequestError):
        checked_text("a" * 4097, "/lora")


def test_a_path_may_be_read_in_as_many_ways_as_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/A%2f;b//C"
    known = {path}
    while more := {way(one) for one in known for way in routes._LIBERTIES} - known:
        known |= more
    monkeypatch.setattr(routes, "_MAX_READINGS", len(known))
    assert routes.readings(path)
    monkeypatch.setattr(routes, "_MAX_READINGS", len(known) - 1)
    with pytest.raises(RefusedRequestError, match="too many ways"):
        routes.readings(path)


def test_a_name_over_the_limit_of_look_ups_means_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def itself(name: str, _: LoraFiles) -> tuple[str, ...]:
        return (name,)

    monkeypatch.setattr(lora_files, "_MOST_LOOK_UPS", 2)
    files = LoraFiles("")
    assert [files.meant(name, itself) for name in "abca"] == [("a",), ("b",), (), ("a",)]
