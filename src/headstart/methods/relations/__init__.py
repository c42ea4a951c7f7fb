"""Relation-level transfer: two domains, labels in one; estimators that close the gap on features (n, d) or weigh source cases across it."""
