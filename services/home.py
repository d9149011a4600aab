"""Where one running Trimtab keeps its state, and the loopback ports it uses.

A home is a directory; everything that must survive a restart is a file or a database under it. Two homes
with different port bases run side by side (a drill beside the main job). Nothing here touches the disk on import.
"""

from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Ports:
    """Loopback TCP ports of one home, all derived from one base so that two homes never collide."""

    base: int

    @property
    def users(self) -> int:
        """Envoy's listener for user traffic."""
        return self.base

    @property
    def forced(self) -> int:
        """Envoy's loopback listener on which a test may force a variant; never evidence."""
        return self.base + 1

    @property
    def envoy_admin(self) -> int:
        return self.base + 2

    @property
    def control(self) -> int:
        return self.base + 3

    @property
    def rtds(self) -> int:
        return self.base + 4

    @property
    def prefect(self) -> int:
        return self.base + 5

    @property
    def reports(self) -> int:
        return self.base + 6

    @property
    def releases(self) -> range:
        """Ports handed to releases, one each, recorded for as long as the release runs."""
        return range(self.base + 10, self.base + 40)


@dataclass(frozen=True)
class Home:
    """The state directory of one running Trimtab (absolute path) and its ports."""

    root: Path
    ports: Ports

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.root / 'trimtab.db'}"

    @property
    def token_file(self) -> Path:
        """Bearer token of the control service, mode 0600."""
        return self.root / "control.token"

    @property
    def issued_tokens_file(self) -> Path:
        """The tokens given to people and programs, hashed, mode 0600."""
        return self.root / "tokens.json"

    @property
    def keys(self) -> Path:
        """The home's signing key and the public keys that it trusts."""
        return self.root / "keys"

    @property
    def trusted_keys_file(self) -> Path:
        """Whose signatures under a release this home accepts."""
        return self.keys / "trusted.json"

    @property
    def traffic(self) -> Path:
        """Envoy's bootstrap, endpoint and route files, and the supervisor's desired/running files."""
        return self.root / "traffic"

    def switches_file(self, service: str) -> Path:
        """Which actions of a service are switched off for everyone; none while there is no such file."""
        return self.root / "switches" / f"{service}.json"

    @property
    def processes(self) -> Path:
        """Standard output of every owned process, and the supervisor's pid file."""
        return self.root / "processes"

    @property
    def decision_logs(self) -> Path:
        """One folder per release, `<release_id>/decisions-<pid>-<number>.jsonl`."""
        return self.root / "logs" / "decisions"

    @property
    def log_key_file(self) -> Path:
        """Key of the hashes that stand in the decision logs for hidden fields, mode 0600; not beside the logs."""
        return self.root / "decision_log.key"

    @property
    def archive(self) -> Path:
        """Old decisions, requests and outcomes: Parquet, `<table>/day=<UTC day>/part-<number>.parquet`."""
        return self.root / "archive"

    @property
    def access_log(self) -> Path:
        """Envoy's access log of user decisions, JSON lines."""
        return self.root / "logs" / "envoy" / "access.jsonl"

    @property
    def releases(self) -> Path:
        """One folder per release id: weights, JSON files, policy copies; immutable."""
        return self.root / "releases"

    @property
    def bentos(self) -> Path:
        """BENTOML_HOME of the shared store of built Bentos."""
        return self.root / "bentoml"

    @property
    def snapshots(self) -> Path:
        """Validated data snapshots and quarantine Parquet files."""
        return self.root / "data"

    @property
    def benchmarks(self) -> Path:
        """Frozen evaluation sets, `<service>/<name>-v<version>/`; immutable."""
        return self.root / "benchmarks"

    @property
    def reports(self) -> Path:
        """Evidently workspace."""
        return self.root / "reports"
