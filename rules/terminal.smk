import contextlib
import logging
import re

from snakemake.logging import logger
from tqdm import tqdm

BAR = "{percentage:3.0f}%|{bar}| {n_fmt} of {total_fmt} jobs, {elapsed}"
UNSAID = ("job_started", "job_finished")
ROUTINE = re.compile(r"Select jobs|DAG of jobs will be updated|Updating checkpoint")


class Brief(logging.Handler):
    """What a run says on the screen: one line a job, and a bar; in a file, a line a tenth.

    All else, errors above all, is said by the handler that it stands for, in Snakemake's own
    words. What it leaves out stands in .snakemake/log, and on the screen with --verbose.
    """

    def __init__(self, full):
        super().__init__(full.level)
        self.full, self.bar, self.tenths = full, None, 0
        self.in_terminal = getattr(full.stream, "isatty", bool)()

    def emit(self, record):
        event = getattr(record, "event", None)
        if event == "progress":
            self._advance(record)
        elif event == "job_info":
            if self.full.filter(record):
                self._say(logging.makeLogRecord({"msg": one_line(record)}))
        elif event not in UNSAID and not ROUTINE.match(record.getMessage()):
            self._say(record)

    def _say(self, record):
        """Above the bar, if there is one."""
        file = self.full.stream
        with tqdm.external_write_mode(file) if self.bar else contextlib.nullcontext():
            self.full.handle(record)

    def _advance(self, record):
        tenths = 10 * record.done // record.total
        if not self.in_terminal:
            if tenths > self.tenths:
                self.full.handle(record)
        elif self.full.filter(record):
            if self.bar is None:
                how = {"leave": False, "dynamic_ncols": True, "bar_format": BAR}
                self.bar = tqdm(file=self.full.stream, **how)
            self.bar.total = record.total  # it grows once the selection is known
            self.bar.update(record.done - self.bar.n)
        self.tenths = tenths

    def close(self):
        if self.bar is not None:
            self.bar.close()
        self.full.close()
        super().close()


def one_line(record):
    """A job's rule, and the names that tell it from the rule's others."""
    names = ", ".join(f"{name}={value}" for name, value in record.wildcards.items())
    indent = "    " if record.indent else ""
    head = f"{indent}rule {record.rule_name}"
    return f"{head}: {names}".rstrip(": ")


def say_briefly():
    """Put ``Brief`` in the place of what Snakemake writes to the screen with."""
    for handler in logger.handlers:
        if handler.name == "DefaultStreamHandler":
            logger.removeHandler(handler)
            logger.addHandler(Brief(handler))
            break
