"""The responder process: answers Map-Requests from its own table and pushes."""
