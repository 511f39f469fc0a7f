"""A stand-in for Anthropic's Messages API on this machine: it asks for the tools of a script and keeps what it is told."""

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SERVER = "mcp__nanobanana__"
"""The beginning that Claude Code gives the names of our tools."""


class MessagesAPI:
    """Answers each turn with the next tool use of `script`, then with words. `results` are the tool results as the
    model would get them, in the order of the script.
    """

    def __init__(self, script: Sequence[tuple[str, dict[str, Any]]]) -> None:
        self.results: list[Any] = []
        self.heard: list[str] = []
        """The messages of each turn, as JSON."""
        self._script = list(script)
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not self.path.startswith("/v1/messages") or "count_tokens" in self.path:
                    return self._send("application/json", b'{"input_tokens": 1}')
                events = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in api.turn(request))
                return self._send("text/event-stream", events.encode())

            def do_GET(self) -> None:
                self._send("application/json", b"{}")

            def do_HEAD(self) -> None:
                self._send("application/json", b"")

            def _send(self, kind: str, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> "MessagesAPI":
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def turn(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        with self._lock:
            self.heard.append(json.dumps(request["messages"]))
            for message in request["messages"]:
                for part in message["content"] if isinstance(message["content"], list) else []:
                    use = part.get("tool_use_id", "")
                    if part["type"] == "tool_result" and use.startswith("toolu_script") and use not in self._seen:
                        self._seen.add(use)
                        self.results.append(part["content"])
            ours = any(tool.get("name", "").startswith(SERVER) for tool in request.get("tools", []))
            step = len(self.results)
            block: dict[str, Any] = {"type": "text", "text": ""}
            delta: dict[str, Any] = {"type": "text_delta", "text": "Done."}
            if ours and step < len(self._script):
                name, arguments = self._script[step]
                block = {"type": "tool_use", "id": f"toolu_script{step:02}", "name": SERVER + name, "input": {}}
                delta = {"type": "input_json_delta", "partial_json": json.dumps(arguments)}
        usage = {"input_tokens": 1, "output_tokens": 1}
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": request.get("model"), "content": []}
        stop = "tool_use" if block["type"] == "tool_use" else "end_turn"
        yield {
            "type": "message_start",
            "message": message | {"stop_reason": None, "stop_sequence": None, "usage": usage},
        }
        yield {"type": "content_block_start", "index": 0, "content_block": block}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
        yield {"type": "content_block_stop", "index": 0}
        yield {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": usage}
        yield {"type": "message_stop"}
