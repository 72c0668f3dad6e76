"""multipart/form-data, taken apart as it arrives: fields kept, the file's bytes handed on."""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from app.domain.errors import InvalidInput

FILE_FIELD = "file"
MAX_FIELD_BYTES = 64 * 1024

_HOW = "Send multipart/form-data with the file in the field `file`."


@dataclass
class UploadForm:
    """What one upload form brought. `fields` holds the text fields that were present."""

    fields: dict[str, str] = field(default_factory=dict)
    file_name: str | None = None
    complete: bool = False


class FormReader:
    """Push parser for an upload form: feed it chunks, take the file's bytes.

    `allowed` names the text fields. Raises InvalidInput on anything else than one `file` and those
    fields, each at most once.
    """

    def __init__(self, content_type: str, allowed: frozenset[str]) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise InvalidInput("The request is not an upload form.", _HOW)
        self.form = UploadForm()
        self._allowed = allowed
        self._file_bytes: list[bytes] = []
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._field: str | None = None
        self._text = bytearray()
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begin,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_end,
                    "on_header_field": self._header_field_data,
                    "on_header_value": self._header_value_data,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise InvalidInput("The request is not a readable upload form.", _HOW) from error

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take one chunk in; the parts of the file that were in it. Raises InvalidInput."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidInput("The request is not a readable upload form.", _HOW) from error
        taken, self._file_bytes = self._file_bytes, []
        return taken

    def finish(self) -> UploadForm:
        """The whole form. Raises InvalidInput when it was cut short or brought no file."""
        if not self.form.complete:
            raise InvalidInput("The upload ended before it was complete.", "Upload it again.")
        if self.form.file_name is None:
            raise InvalidInput(
                "The form brought no file.", _HOW, fields={FILE_FIELD: "This field is required."}
            )
        return self.form

    def _part_begin(self) -> None:
        self._disposition = b""
        self._header_name = self._header_value = b""

    def _header_field_data(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_value_data(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = _decode(options.get(b"name", b""))
        is_file = b"filename" in options
        if name == FILE_FIELD and not is_file:
            _wrong_field(name, "This has to be a file, sent with a file name.")
        if name != FILE_FIELD and name not in self._allowed:
            known = ", ".join(sorted({FILE_FIELD, *self._allowed}))
            _wrong_field(name, f"There is no such field here. Known are {known}.")
        if is_file and name != FILE_FIELD:
            _wrong_field(name, "This has to be a text, not a file.")
        if name in self.form.fields or (is_file and self.form.file_name is not None):
            _wrong_field(name, "This field was sent more than once; one upload is one file.")
        if is_file:
            self.form.file_name = _decode(options[b"filename"])
            self._field = None
        else:
            self._field = name
            self._text.clear()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._file_bytes.append(data[start:end])
            return
        if len(self._text) + end - start > MAX_FIELD_BYTES:
            _wrong_field(self._field, f"This may have at most {MAX_FIELD_BYTES // 1024} KiB.")
        self._text += data[start:end]

    def _part_end(self) -> None:
        if self._field is not None:
            self.form.fields[self._field] = _decode(bytes(self._text))

    def _end(self) -> None:
        self.form.complete = True


def _decode(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _wrong_field(name: str, detail: str) -> None:
    shown = display_name(name) or "(without a name)"
    raise InvalidInput(f"The form's field {shown}: {detail}", fields={shown: detail})


def display_name(text: str, limit: int = 200) -> str:
    """Text given by a user as one printable line of at most `limit` characters."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(line.split())[:limit].rstrip()


def base_name(file_name: str) -> str:
    """The last part of a file name, whichever system it comes from; display text only."""
    return display_name(file_name.replace("\\", "/").rstrip("/").rpartition("/")[2])
