"""As much of curl as the documents use, so that the tests need none: `[*CURL, "-sS", url]` is its command."""

import argparse
import sys
from http.client import HTTPConnection
from urllib.parse import urlsplit

CURL = (sys.executable, __file__)


def main() -> None:
    """Make one request and write the answer to standard output; an option that is not known is an error."""
    parser = argparse.ArgumentParser(prog="curl", allow_abbrev=False)
    parser.add_argument("url")
    parser.add_argument("-s", "-S", action="store_true")
    parser.add_argument("-i", action="store_true", dest="head")
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", action="append", default=[], dest="headers")
    parser.add_argument("-d", dest="body")
    given = parser.parse_args()

    headers = {"Accept": "*/*"}
    if given.body is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    headers |= dict(header.split(": ", 1) for header in given.headers)
    url = urlsplit(given.url)
    connection = HTTPConnection(url.netloc)
    connection.request(
        given.method or ("GET" if given.body is None else "POST"),
        url.path + (f"?{url.query}" if url.query else ""),
        given.body,
        headers,
    )
    answer = connection.getresponse()
    if given.head:
        sys.stdout.write(f"HTTP/1.1 {answer.status} {answer.reason}\n{answer.headers}")
    sys.stdout.write(answer.read().decode())


if __name__ == "__main__":
    main()
