"""The pytest plugin: fixtures, the cause in failure reports, and a child booted early.

``http_server``, ``smtp_server``, ``tcp_server`` and ``udp_server`` are started servers, a new one
for each test; set ``.handler`` in the test. ``serve``, ``serve_module`` and ``serve_session`` start
as many as a test likes. ``server_manager`` lasts for the whole session.
"""

# pytest finds here what it calls, by the names of its hooks, and the fixtures.
from .plugin.boot import pytest_collection_finish as pytest_collection_finish
from .plugin.boot import pytest_itemcollected as pytest_itemcollected
from .plugin.boot import pytest_load_initial_conftests as pytest_load_initial_conftests
from .plugin.fixtures import MADE
from .plugin.phases import pytest_fixture_setup as pytest_fixture_setup
from .plugin.phases import pytest_runtest_call as pytest_runtest_call
from .plugin.phases import pytest_runtest_protocol as pytest_runtest_protocol
from .plugin.phases import pytest_runtest_setup as pytest_runtest_setup
from .plugin.phases import pytest_runtest_teardown as pytest_runtest_teardown
from .plugin.reports import pytest_runtest_makereport as pytest_runtest_makereport
from .plugin.rest import pytest_keyboard_interrupt as pytest_keyboard_interrupt
from .plugin.rest import pytest_report_teststatus as pytest_report_teststatus
from .plugin.rest import pytest_runtestloop as pytest_runtestloop
from .plugin.rest import pytest_sessionfinish as pytest_sessionfinish
from .plugin.rest import pytest_testnodedown as pytest_testnodedown
from .plugin.settings import pytest_addoption as pytest_addoption
from .plugin.settings import pytest_configure as pytest_configure

globals().update(MADE)
