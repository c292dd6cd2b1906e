## Orders for the people who ship them: only those that are paid or shipped, masked emails, a mark
## on large orders, one stream per region.

import walmill

## The first quantity that a 64-bit float can't tell from its neighbour.
const large = 9_007_199_254_740_993

const
  status = 0'u32
  email = 1'u32
  quantity = 2'u32
  region = 3'u32

plugin("orders", "0.1.0")

proc init(config: ptr Config) {.exportc: "walmill_init".} = discard

proc relation(relation: ptr Relation, plan: ptr Plan) {.exportc: "walmill_relation".} =
  plan.need("status")
  plan.need("email")
  plan.need("quantity")
  plan.need("region")
  let shape = plan.shapeOfTable
  shape.computed(textOf("email"), TagText)
  shape.computed(textOf("large"), TagBool)

proc mask(address: Text): Text =
  ## `ada@example.com` as `a***@example.com`; what is no address as `***`.
  let domain = address.fromLast('@')
  if domain.p == nil: textOf("***")
  else: concat(address.firstCharacter, textOf("***"), domain)

proc judge(event: var Event) =
  let found = event.text(status)
  if not (found == "paid" or found == "shipped"):
    event.drop
    return
  let count = event.cell(quantity)
  if count.tag == TagInt and count.integer < 0:
    event.reject(concat(textOf("negative quantity: "), decimal(count.integer)))
    return
  event.emit(0)
  let address = event.cell(email)
  if address.tag == TagText: event.addText(mask(address.text))
  else: event.add(address)
  if count.tag == TagInt: event.addBool(count.integer >= large)
  else: event.add(count)
  let to = event.text(region)
  if to.len > 0: event.send(concat(textOf("orders."), to.lower))

proc process(batch: ptr Batch) {.exportc: "walmill_process".} =
  var event: Event
  while batch.nextRow(event): event.judge
