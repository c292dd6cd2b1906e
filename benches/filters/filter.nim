## Keeps the rows of one country: what `scripts/language-figures` measures Nim with.

import walmill

plugin("filter", "0.1.0")

proc init(config: ptr Config) {.exportc: "walmill_init".} = discard

proc relation(relation: ptr Relation, plan: ptr Plan) {.exportc: "walmill_relation".} =
  plan.need("country")

proc process(batch: ptr Batch) {.exportc: "walmill_process".} =
  var event: Event
  while batch.nextRow(event):
    if not (event.text(0) == "NZ"): event.drop
