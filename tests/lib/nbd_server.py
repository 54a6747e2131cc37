# SPDX-License-Identifier: LGPL-2.1-or-later
"""An NBD server that misbehaves: nbd_server.py SOCKET HOW...

It serves 1 MiB of the byte 65 from a thread for each connection, until it is killed. HOW is a word or
NAME=NUMBER; without one it behaves:
    size=N align=N most=N   what it says of itself
    silent=N                from the Nth reading request on it says nothing; silent=0: never a word
    trickle=N               from the Nth one on it says a byte every 200 ms
    close=N                 the Nth reading request ends the connection in the middle of the answer
    fail=N                  the Nth reading request, and all after it, is an error
    garbage                 the answer to a reading request is noise
    short, twice, beyond    an answer with less than was asked for, with one half twice, with more
    wrong-cookie            an answer to what nobody asked
    holes=KIND              of base:allocation: fine, none, empty, zero-length, endless, error, other;
                            once: the first question is answered with an error, the others with a hole
    late=MILLISECONDS       reading requests are answered so much later, side by side; the greatest number of
                            them that were open at once stands in the file SOCKET.most
    flood                   answers to options without end
"""
import os
import socket
import struct
import sys
import threading
import time

SIZE = 1 << 20
OPT_MAGIC, REPLY_MAGIC = 0x49484156454F5054, 0x3e889045565a9
REQUEST, SIMPLE, CHUNK = 0x25609513, 0x67446698, 0x668e33ef


class Server:
    def __init__(self, words):
        self.how = dict(word.partition('=')[::2] for word in words)
        self.reads = self.questions = self.open = self.most_open = 0
        self.lock = threading.Lock()

    def number(self, name, otherwise):
        return int(self.how.get(name, otherwise))

    def serve(self, connection):
        try:
            with connection:
                if self.handshake(Wire(connection)):
                    self.transmit(Wire(connection))
        except (ConnectionError, EOFError):
            pass

    def handshake(self, wire):
        if self.how.get('silent') == '0':
            time.sleep(1000)
        wire.send(b'NBDMAGIC' + struct.pack('>QH', OPT_MAGIC, 3))
        wire.get(4)
        while True:
            _, option, length = struct.unpack('>QII', wire.get(16))
            data = wire.get(length)

            def reply(kind, payload=b'', option=option):
                wire.send(struct.pack('>QIII', REPLY_MAGIC, option, kind, len(payload)) + payload)

            while 'flood' in self.how:
                reply(3, struct.pack('>H', 0) + struct.pack('>QH', SIZE, 1))
            if option == 8:  # structured replies
                reply(1)
            elif option == 10:  # set meta context
                if 'holes' in self.how:
                    reply(4, struct.pack('>I', 7) + b'base:allocation')
                reply(1)
            elif option == 7:  # go
                reply(3, struct.pack('>HQH', 0, self.number('size', SIZE), 3))
                reply(3, struct.pack('>HIII', 3, self.number('align', 1), 4096, self.number('most', 1 << 25)))
                reply(1)
                return True
            elif option == 2:
                reply(1)
                return False
            else:
                reply(0x80000001)
            del data

    def transmit(self, wire):
        while True:
            magic, _, kind, cookie, start, length = struct.unpack('>IHHQQI', wire.get(28))
            assert magic == REQUEST
            if kind == 0:
                with self.lock:
                    self.reads += 1
                    count = self.reads
                if 'late' in self.how:
                    threading.Thread(target=self.answer_late, args=(wire, cookie, start, length), daemon=True).start()
                else:
                    self.answer_read(wire, cookie, start, length, count)
            elif kind == 7:
                self.answer_status(wire, cookie, start, length)
            elif kind == 2:
                return

    def answer_read(self, wire, cookie, start, length, count):
        def chunk(at, data, done=1, name=cookie):
            wire.send(struct.pack('>IHHQIQ', CHUNK, done, 1, name, len(data) + 8, at) + data)

        half = length // 2
        if 0 < self.number('silent', -1) <= count:
            time.sleep(1000)
        while 0 < self.number('trickle', -1) <= count:
            for byte in struct.pack('>IHHQIQ', CHUNK, 1, 1, cookie, length + 8, start) + b'A' * length:
                time.sleep(0.2)
                wire.send(bytes([byte]))
        if count == self.number('close', -1):
            wire.send(struct.pack('>IHHQIQ', CHUNK, 1, 1, cookie, length + 8, start) + b'A' * half)
            raise ConnectionError
        if 0 < self.number('fail', -1) <= count:
            wire.send(struct.pack('>IHHQIIH', CHUNK, 1, 32769, cookie, 6, 5, 0))
        elif 'garbage' in self.how:
            wire.send(os.urandom(4096))
        elif 'short' in self.how:
            chunk(start, b'A' * half)
        elif 'twice' in self.how:
            chunk(start, b'A' * half, 0)
            chunk(start, b'A' * (length - half))
        elif 'beyond' in self.how:
            chunk(start, b'A' * (length + 65536))
        elif 'wrong-cookie' in self.how:
            chunk(start, b'A' * length, 1, cookie ^ 0x5555)
        else:
            chunk(start, b'A' * length)

    def answer_late(self, wire, cookie, start, length):
        with self.lock:
            self.open += 1
            if self.open > self.most_open:
                self.most_open = self.open
                with open(sys.argv[1] + '.most', 'w', encoding='ascii') as out:
                    out.write(str(self.most_open))
        time.sleep(self.number('late', 0) / 1000)
        with self.lock:
            self.open -= 1
            try:
                self.answer_read(wire, cookie, start, length, 0)
            except ConnectionError:
                pass

    def answer_status(self, wire, cookie, start, length):
        kind = self.how['holes']
        self.questions += 1
        if kind == 'once':
            kind = 'error' if self.questions == 1 else 'other'
        entries = {
            'fine': [(length, 0 if start else 3)],
            'empty': [],
            'zero-length': [(0, 3), (length, 0)],
            'endless': [(0xffffffff, 0)] * 100,
            'other': [(length, 3)],
        }.get(kind, [])
        body = struct.pack('>I', 8 if self.how['holes'] == 'other' else 7) + b''.join(struct.pack('>II', *e) for e in entries)
        if kind == 'none':
            wire.send(struct.pack('>IHHQI', CHUNK, 1, 0, cookie, 0))
        elif kind == 'error':
            wire.send(struct.pack('>IHHQIIH', CHUNK, 1, 32769, cookie, 6, 22, 0))
        else:
            wire.send(struct.pack('>IHHQI', CHUNK, 1, 5, cookie, len(body)) + body)


class Wire:
    def __init__(self, connection):
        self.connection = connection

    def send(self, data):
        self.connection.sendall(data)

    def get(self, count):
        data = b''
        while len(data) < count:
            more = self.connection.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data


def main():
    server = Server(sys.argv[2:])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1] + '.new')
        listener.listen()
        os.rename(sys.argv[1] + '.new', sys.argv[1])
        while True:
            threading.Thread(target=server.serve, args=[listener.accept()[0]], daemon=True).start()


main()
