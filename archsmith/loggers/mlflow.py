"""MLflow: a run of an experiment, on the server or in the database that MLflow is set to."""

import os
import time
from collections.abc import Mapping

from archsmith.loggers.logger import Outcome
from archsmith.loggers.tracker import PROJECT, Tracker, numbers

MOST = 100  # settings in a request
LONGEST = 500  # characters of a setting, in all versions
STATUS = {0: "FINISHED", 75: "KILLED"}  # by exit code


class MLflow(Tracker):
    """Settings are parameters, `<phase>/<metric>` and results are metrics, files are artifacts.

    MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say where to.
    """

    package = "mlflow"

    def start(self, run_id: str | None) -> str:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self.client = MlflowClient()
        if run_id is not None:
            try:
                self.client.update_run(run_id, status="RUNNING")
                return run_id
            except MlflowException:  # deleted, or on another server
                pass
        run_id = self._created()
        self._send_settings(run_id)
        return run_id

    def _created(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self.client.get_experiment_by_name(name)
        place = self.client.create_experiment(name) if known is None else known.experiment_id
        run_id: str = self.client.create_run(place, run_name=self.folder.name).info.run_id
        return run_id

    def _send_settings(self, run_id: str) -> None:
        from mlflow.entities import Param

        params = [Param(name, str(value)[:LONGEST]) for name, value in self.settings.items()]
        for first in range(0, len(params), MOST):
            self.client.log_batch(run_id, params=params[first : first + MOST])

    def send(self, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        self._metrics({f"{phase}/{name}": value for name, value in values.items()}, epoch)

    def _metrics(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = round(1000 * time.time())
        points = [Metric(name, float(value), now, step) for name, value in values.items()]
        self.client.log_batch(self.run_id, metrics=points)

    def finish(self, outcome: Outcome) -> None:
        self._metrics(numbers(outcome.results), 0)
        for file in outcome.files:
            self.client.log_artifact(self.run_id, str(file))

    def end(self, exit_code: int) -> None:
        self.client.set_terminated(self.run_id, STATUS.get(exit_code, "FAILED"))
