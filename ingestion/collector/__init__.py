"""The door: HTTP requests to raw lines in the event log.

app.py        the ASGI application: POST /api/event, /health, /metrics
door.py       one request's bytes to raw lines, or to refusals with a reason
directory.py  what collectors share through PostgreSQL: sites and salts
appender.py   raw lines of many requests to few records of the event log
"""
