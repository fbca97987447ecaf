"""A command leads the tuner itself where nobody does, for as long as the orders that wait take."""

from state_store.hotpath.store import HotpathStore
from worker.errors import OrderRefused
from worker.hotpath.knobs import natives_of
from worker.hotpath.leader import Leader
from worker.hotpath.model_knobs import model_of
from worker.hotpath.writer import TermOver
from worker.reach import open_store
from worker.settings import Settings


async def stand_in(settings: Settings, store: HotpathStore, fresh: bool) -> None:
    """Takes the lease, follows them, and gives it back."""
    name = f"{settings.worker.name} (operator)"
    natives, model = natives_of(settings.worker), model_of(settings.config())
    async with open_store(settings) as numbers:
        leader = Leader(
            store, numbers, settings.hotpath, settings.redis.namespace, name, natives, model, fresh=fresh
        )
        try:
            if await leader.lead():
                await leader.publish()  # what the last leader left wanted
                await leader.obey(await leader.look())
                await leader.publish()
            elif leader.refused:
                raise OrderRefused(f"{leader.refused}: begin anew with predictor hotpath dry-run on --fresh")
        except TermOver:
            pass  # somebody else was faster, and answers
        finally:
            await leader.release()
