"""The five minutes: an app that receives one type of event.

$ export ANIMICA_HOOKS_SIGNING_SECRET=whsec_...
$ animica-hooks serve standalone:hooks            # or: uvicorn standalone:hooks
$ animica-hooks trigger payment.succeeded --data '{"amount": 4200}' --to http://127.0.0.1:8000
"""

from animica_hooks import Event, Hooks

hooks = Hooks()  # signing secret and database from the environment, or as arguments


@hooks.on("payment.succeeded")
async def record_payment(event: Event) -> None:
    print(event.id, event.data["amount"])
