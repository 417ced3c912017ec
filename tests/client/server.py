"""A server of the protocol for tests: one process, one dictionary for everything, faults by order."""

from __future__ import annotations

import hashlib
import re
import secrets
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from shoal.wire.blobs import blob_id, check_part, manifest_of
from shoal.wire.codec import decode, encode
from shoal.wire.messages import (
    CheckIn,
    Declined,
    Enroll,
    Enrolled,
    Hello,
    Missing,
    Orders,
    Problem,
    Result,
    SecureStep,
    ServerInfo,
    Session,
    Upload,
    Verdict,
)
from shoal.wire.signing import check_mac, enroll_bytes, hello_bytes, to_sign, verify


class Refusal(Exception):  # noqa: N818
    def __init__(self, status, code, message="refused by the test", retry_after_s=None):
        super().__init__(code)
        self.status, self.problem = status, Problem(code=code, message=message, retry_after_s=retry_after_s)


class Page(Exception):  # noqa: N818
    """What somebody on the way says, who wants a login first."""

    def __init__(self, status):
        super().__init__(status)
        self.status = status


class Cut(Exception):  # noqa: N818
    """The connection ends here, without an answer."""


class Server:
    """`faults` has, by a pattern for "METHOD path", what goes wrong with the next requests that match: a function that
    raises, before the request is done, or ("after", function), when it is done and nobody was told."""

    def __init__(self):
        self.federation, self.time = "ward", 0.0
        self.busy_wait_s = 0.0
        self.versions = (1,)
        self.token, self.clients = "one-time", {}
        self.runs, self.tasks, self.blobs = [], [], {}
        self.results, self.verdicts, self.declined, self.offered = {}, {}, {}, {}
        self.sums = {}
        self.faults, self.requests, self.check_ins = {}, [], []
        self.newest = {}
        self.lock = threading.RLock()
        self.restart()

    def restart(self):
        """What is in memory is gone; what was made durable stays."""
        self.boot, self.sessions = secrets.token_hex(8), {}
        self.superseded = set()

    def add_blob(self, data, **options):
        manifest = manifest_of(data, **options)
        self.blobs[blob_id(manifest)] = data
        return manifest

    def answer(self, method, path, headers, body):
        self.requests.append(f"{method} {path}")
        fault = self.fault(method, path)
        if fault and not isinstance(fault, tuple):
            fault()
        with self.lock:
            reply = self.reply(method, path, headers, body)
        if fault and isinstance(fault, tuple):
            fault[1]()
        return reply

    def fault(self, method, path):
        for pattern, waiting in self.faults.items():
            if waiting and re.fullmatch(pattern, f"{method} {path}"):
                return waiting.pop(0)
        return None

    def reply(self, method, path, headers, body):
        if path == "/v1/server":
            return encode(
                ServerInfo(federation=self.federation, versions=self.versions, boot=self.boot, time=self.time)
            )
        if path == "/v1/enroll":
            return self.enroll(decode(body, Enroll))
        if path == "/v1/session":
            return self.session(decode(body, Hello))
        open_ = self.known(method, path, headers, body)
        if path == "/v1/checkin":
            return self.check_in(open_, decode(body, CheckIn))
        if found := re.fullmatch("/v1/blobs/([0-9a-f]{64})", path):
            return self.blob(found[1], headers.get("range"))
        task, what = re.fullmatch("/v1/tasks/([^/]+)/(.+)", path).groups()
        if what == "upload":
            return self.offer(task, decode(body, Upload).manifest)
        if what.startswith("parts/"):
            return self.part(task, int(what.removeprefix("parts/")), body)
        if what == "report":
            return self.report(task, decode(body, Result))
        if what == "secure":
            return self.secure(task, decode(body, SecureStep))
        self.declined[task] = decode(body, Declined)
        if task in self.verdicts:
            return encode(self.verdicts[task])
        self.tasks = [t for t in self.tasks if t.task != task]
        return encode(Verdict(verdict="cancelled"))

    def enroll(self, message):
        signed = enroll_bytes(self.federation, message.token, message.name, message.public_key)
        assert verify(message.public_key, message.signature, signed)
        for client, (name, key) in self.clients.items():
            if key == message.public_key:
                return encode(Enrolled(client=client, name=name, federation=self.federation))
        if message.token != self.token:
            raise Refusal(403, "token", "this token is used up: ask for a new one")
        self.token = None
        self.clients["c1"] = message.name, message.public_key
        return encode(Enrolled(client="c1", name=message.name, federation=self.federation))

    def session(self, message):
        if message.boot != self.boot:
            raise Refusal(401, "session-unknown")
        _, key = self.clients[message.client]
        signed = hello_bytes(self.federation, self.boot, message.client, message.incarnation, message.nonce)
        assert verify(key, message.signature, signed)
        if message.incarnation in self.superseded:
            raise Refusal(409, "superseded", "another agent said hello after this one")
        before = self.newest.get(message.client)
        if before and before != message.incarnation:
            self.superseded.add(before)
        self.newest[message.client] = message.incarnation
        session, mac_key = secrets.token_hex(8), secrets.token_bytes(32)
        self.sessions[session] = {"mac": mac_key, "inc": message.incarnation, "seen": set(), "told": set()}
        return encode(Session(session=session, mac_key=mac_key, lasts_s=3600.0))

    def known(self, method, path, headers, body):
        open_ = self.sessions.get(headers["shoal-session"])
        if open_ is None:
            raise Refusal(401, "session-unknown")
        if open_["inc"] in self.superseded:
            raise Refusal(409, "superseded", "another agent said hello after this one")
        counter = int(headers["shoal-counter"])
        signed = to_sign(method, path, counter, headers["shoal-digest"])
        assert check_mac(open_["mac"], signed, given=headers["shoal-mac"])
        assert counter not in open_["seen"], "a request came twice"
        open_["seen"].add(counter)
        return open_

    def check_in(self, open_, message):
        self.check_ins.append(message)
        news = [info for info in self.runs if info.run not in open_["told"]]
        open_["told"].update(info.run for info in news)
        holding = {held.task for held in message.holding}
        own = [task for task in self.tasks if task.task not in self.results and task.run not in message.refuses]
        fresh = () if message.busy or news else [task for task in own if task.task not in holding]
        gone = holding - {task.task for task in own}
        wait_s = self.busy_wait_s if message.busy else 0.0
        return encode(Orders(wait_s=wait_s, tasks=tuple(fresh), runs=tuple(news), cancelled=tuple(gone)))

    def blob(self, blob, ranged):
        data = self.blobs.get(blob)
        if data is None:
            raise Refusal(404, "blob-unknown")
        if ranged:
            first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", ranged).groups())
            return data[first : last + 1]
        return data

    def offer(self, task, manifest):
        if task in self.verdicts:
            return encode(self.verdicts[task])
        held = self.offered.setdefault(task, (manifest, {}))
        return encode(Missing(parts=tuple(n for n in range(len(manifest.parts)) if n not in held[1])))

    def part(self, task, number, body):
        manifest, parts = self.offered[task]
        check_part(manifest, number, hashlib.sha256(body).digest())
        parts[number] = body
        return b""

    def report(self, task, result):
        if task in self.verdicts:
            return encode(self.verdicts[task])
        if result.inline is None:
            manifest, parts = self.offered[task]
            if len(parts) < len(manifest.parts):
                raise Refusal(409, "incomplete")
            data = b"".join(parts[n] for n in range(len(manifest.parts)))
        else:
            data = result.inline
        assert blob_id(manifest_of(data, coding=result.manifest.coding)) == blob_id(result.manifest)
        if result.secure is not None:
            self.sums[task].report(result.secure, data)
        self.results[task] = result.manifest, data
        self.verdicts[task] = Verdict(verdict="counted")
        return encode(self.verdicts[task])

    def secure(self, task, step):
        if task not in self.sums:
            raise Refusal(409, "secure-over", "this round's secure sum is over")
        return encode(self.sums[task].step(step.stage, step.message))

    @contextmanager
    def serving(self, wrap=lambda sock: sock):
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def respond(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                try:
                    status, data = 200, server.answer(self.command, self.path, headers, body)
                except Page as page:
                    status, data = page.status, b"<html>welcome to our hotel</html>"
                except Refusal as refusal:
                    status, data = refusal.status, encode(refusal.problem)
                except Cut:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(status)
                self.send_header("content-type", "text/html" if data[:1] == b"<" else "application/msgpack")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = respond  # noqa: N815

            def log_message(self, *args):
                pass

        httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        httpd.socket = wrap(httpd.socket)
        httpd.daemon_threads = True
        httpd.handle_error = lambda request, address: None
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}"
        finally:
            httpd.shutdown()
            httpd.server_close()
            thread.join()


def cut():
    raise Cut


def busy(retry_after_s=None):
    def refuse():
        raise Refusal(503, "busy", "come again", retry_after_s)

    return refuse
