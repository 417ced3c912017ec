"""The life of a run, its rounds and their tasks, as pure state machines: events and time in, effects out."""

from shoal.rounds.rules import Rules as Rules
