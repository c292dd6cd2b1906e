from walmill import DROP, PASS, Config, Plugin, Row, Verdict


class Local(Plugin):
    """Keeps the rows of one country."""

    needs = ["country"]

    def start(self, config: Config) -> None:
        self.country = config.text("country")

    def process(self, row: Row) -> Verdict:
        return PASS if row.text("country") == self.country else DROP
