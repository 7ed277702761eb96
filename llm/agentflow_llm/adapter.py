"""What the clients of one endpoint share: its address, its connections, and how these are closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .closing import Closing

if TYPE_CHECKING:
    from .endpoint import Endpoint


class Adapter(Closing):
    """A client that asks an `Endpoint`. It stands before `BaseChatModel` or `BaseEmbedder` among the bases."""

    model: str
    server_address: str | None
    server_port: int | None
    account: str | None

    def connect(self, endpoint: Endpoint) -> None:
        """Ask this endpoint from now on; for the constructor."""
        self.endpoint = endpoint
        self.server_address = endpoint.address
        self.server_port = endpoint.port
        self.account = endpoint.account

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r}, base_url={self.endpoint.asked.server!r})"

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self.endpoint.base_url

    @property
    def place(self) -> str:
        """The server, to be put behind the model's name in a message."""
        return f" at {self.endpoint.asked.server}"

    async def prepare(self) -> None:
        """Load what takes long to import."""
        await self.endpoint.prepare()

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a client that was given stays open."""
        await self.endpoint.aclose()
