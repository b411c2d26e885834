    def _write(self, rows: Sequence[Mapping[str, object]]) -> None:
        columns = sorted({key for row in rows for key in row} - {"step"})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["step", *columns])
            writer.writeheader()
            writer.writerows(rows)


def wandb_logger(folder: str, project: str, name: str | None) -> Logger:
    """Weights & Biases; without a login the run is kept in ``folder`` and can be sent later by `wandb sync`."""
    return WandbLogger(save_dir=folder, project=project, name=name, offline=not has_wandb_login())


def has_wandb_login() -> bool:
    """Whether a key stands in ``WANDB_API_KEY`` or in the user's netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(WANDB_HOST) is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
