"""What type checkers report: an error in each line that says so. It is never run."""

from __future__ import annotations

from sidestage import TLS, HTTPRequest, HTTPServer, Mail, SMTPServer, TCPServer, UDPServer


def answer(request: HTTPRequest) -> str:
    return request.path


def count(mail: Mail) -> int:
    return len(mail.data)


async def count_later(mail: Mail) -> int:
    return len(mail.data)


HTTPServer(8080)  # wrong
HTTPServer(answer)  # wrong
SMTPServer(25)  # wrong
TCPServer(8080)  # wrong
UDPServer(("localhost", "53"))  # wrong
HTTPServer(hander=answer)  # wrong
HTTPServer(tls="yes")  # wrong
UDPServer(tls=True)  # wrong
TLS(client_auth="always")  # wrong
TLS(hosts=7)  # wrong
TLS.expired(cert="cert.pem")  # wrong
TCPServer().tls = "yes"  # wrong

server = HTTPServer()
server.hander = answer  # wrong
server.timeout = 1  # wrong
assert server.recieved  # wrong

SMTPServer(handler=count)  # wrong
SMTPServer(handler=count_later)  # wrong
SMTPServer(handler=lambda mail: 250)  # wrong
mail_server = SMTPServer()
mail_server.handler = count  # wrong


async def wait() -> None:
    await server.wait_for(1)  # wrong


server.expect("GET", "/", params={"page": 1})  # wrong
server.allow("GET", "/", jsn=1)  # wrong
server.expect("GET", "/").reply(json={})  # wrong
server.expect("GET", "/").hold(timeout=1)  # wrong
server.take("GET", "/").reply("a", delay=1)  # wrong
