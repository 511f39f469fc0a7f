import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx2
import pytest

BODY = {"contents": [{"parts": [{"text": "a cat"}]}]}
PATH = "/v1beta/models/gemini-nano-banana-2.1:generateContent"


@pytest.fixture
def served() -> Iterator[tuple[subprocess.Popen[str], str]]:
    program = "from nanobanana_mcp.emulator.serve import serve; serve(0)"
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process:
        line = process.stderr.readline()
        found = re.fullmatch(r"Gemini emulator listening on (http://127\.0\.0\.1:[1-9]\d+)\n", line)
        assert found, line
        yield process, found[1]
        process.kill()


def in_flight(client: httpx2.Client, wanted: int) -> None:
    """Wait until so many calls are being answered."""
    while client.get("/emulator/state").json()["counts"]["in_flight"] != wanted:
        pass


@pytest.mark.slow
def test_a_served_emulator_really_hangs_up_and_stops_quietly(served: tuple[subprocess.Popen[str], str]) -> None:
    process, url = served
    whens = ("before", "after_charge", "mid_body")
    with httpx2.Client(base_url=url, headers={"x-goog-api-key": "TEST_KEY"}, timeout=120) as client:
        queue = [{"behaviour": "Drop", "when": when} for when in whens]
        assert client.post("/emulator/control", json={"queue": [*queue, {"behaviour": "Hang"}]}).status_code == 200
        for when in whens:
            heard = "without sending complete message body" if when == "mid_body" else "without sending a response"
            with pytest.raises(httpx2.RemoteProtocolError, match=heard):
                client.post(PATH, json=BODY)
        hanging = socket.create_connection((client.base_url.host, client.base_url.port))
        body = json.dumps(BODY).encode()
        head = f"POST {PATH} HTTP/1.1\r\nHost: here\r\nx-goog-api-key: TEST_KEY\r\nContent-Length: {len(body)}\r\n\r\n"
        hanging.sendall(head.encode() + body)
        in_flight(client, 1)
        hanging.close()
        in_flight(client, 0)
        assert client.post(PATH, json=BODY).status_code == 200
        headers = {"X-Goog-Upload-Protocol": "resumable", "X-Goog-Upload-Command": "start"}
        start = client.post("/upload/v1/files", json={"file": {"mimeType": "image/png"}}, headers=headers)
        assert start.headers["x-goog-upload-url"].startswith(f"{url}/upload/v1/files?upload_id=")
        state = client.get("/emulator/state").json()
    assert len(state["charges"]) == 3
    assert state["counts"]["generateContent"] == 5
    assert state["counts"]["in_flight"] == 0
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=120)
    assert (process.returncode, rest) == (0, "")
