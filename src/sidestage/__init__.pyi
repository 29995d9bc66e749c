# What users import, a line each; what reads it is ``__init__.py``.
from .dispatch.connection import Connection as Connection
from .errors import ForcedStopWarning as ForcedStopWarning
from .errors import LeftRunningWarning as LeftRunningWarning
from .errors import NotOneRecord as NotOneRecord
from .errors import ServerDied as ServerDied
from .errors import ServerStopped as ServerStopped
from .errors import SidestageError as SidestageError
from .errors import StartError as StartError
from .errors import StartTimeout as StartTimeout
from .errors import StateError as StateError
from .errors import WaitTimeout as WaitTimeout
from .journal.facts import Diagnostic as Diagnostic
from .journal.facts import OpenConnection as OpenConnection
from .journal.facts import StopReport as StopReport
from .journal.journal import Received as Received
from .journal.record import Answer as Answer
from .journal.stats import ServerStats as ServerStats
from .protocols.http.fields import Fields as Fields
from .protocols.http.fields import Headers as Headers
from .protocols.http.forms import FormPart as FormPart
from .protocols.http.request import HTTPRequest as HTTPRequest
from .protocols.http.response import HTTPResponse as HTTPResponse
from .protocols.http.server import HTTPServer as HTTPServer
from .protocols.smtp.mail import Mail as Mail
from .protocols.smtp.server import SMTPServer as SMTPServer
from .protocols.tcp.server import TCPServer as TCPServer
from .protocols.tcp.transcript import Transcript as Transcript
from .protocols.udp.datagram import Datagram as Datagram
from .protocols.udp.server import UDPServer as UDPServer
from .server.during import During as During
from .server.lifecycle import State as State
from .server.manager import ServerManager as ServerManager
from .server.serve import Serve as Serve
from .server.server import Server as Server

__version__: str
