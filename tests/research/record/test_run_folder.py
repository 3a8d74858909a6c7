"""Files of a run's folder are whole or not there."""

import errno
import resource
import signal

import pytest

from research.record.whole_files import write_text


def test_a_file_that_cannot_be_written_is_named_and_the_old_one_stays(tmp_path):
    file = tmp_path / "list.txt"
    write_text(file, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(OSError, match=r"list\.txt") as raised:
            write_text(file, "new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert raised.value.errno == errno.EFBIG and raised.value.filename == str(file)
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]
    assert file.stat().st_mode & 0o777 == 0o644
