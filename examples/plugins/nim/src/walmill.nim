## The part of walmill.h that a plugin in Nim needs: see there. Nim compiles to C, so it takes the
## types and functions from the header itself.

{.compile: "../../../../sdk/c/walmill.c".}

{.push header: "walmill.h".}
type
  Text* {.importc: "wm_text", bycopy.} = object
    p* {.importc: "ptr".}: ptr UncheckedArray[char]
    len*: csize_t
  Config* {.importc: "wm_config", incompleteStruct.} = object
  Relation* {.importc: "const wm_relation", incompleteStruct.} = object
  Plan* {.importc: "wm_plan", incompleteStruct.} = object
  Shape* {.importc: "wm_shape", incompleteStruct.} = object
  Batch* {.importc: "wm_batch", incompleteStruct.} = object
  Event* {.importc: "wm_event".} = object
    index*, relation*: uint32
    op*: uint8
  Cell* {.importc: "wm_cell", bycopy.} = object
    tag*: uint8
    boolean*: bool
    integer*: int64
    text*: Text

const
  TagBool* = 1'u8
  TagInt* = 2'u8
  TagText* = 16'u8

proc need*(plan: ptr Plan, name: cstring): uint32 {.importc: "wm_need", discardable.}
proc shapeOfTable*(plan: ptr Plan): ptr Shape {.importc: "wm_shape_of".}
proc computed*(shape: ptr Shape, name: Text, tag: uint8) {.importc: "wm_shape_computed".}
proc nextRow*(batch: ptr Batch, event: var Event): bool {.importc: "wm_next_row".}
proc cell*(event: var Event, index: uint32): Cell {.importc: "wm_get".}
proc text*(event: var Event, index: uint32): Text {.importc: "wm_get_text".}
proc drop*(event: var Event) {.importc: "wm_drop".}
proc reject*(event: var Event, reason: Text) {.importc: "wm_reject".}
proc send*(event: var Event, stream: Text) {.importc: "wm_send".}
proc emit*(event: var Event, shape: uint32) {.importc: "wm_emit".}
proc add*(event: var Event, cell: Cell) {.importc: "wm_add".}
proc addText*(event: var Event, text: Text) {.importc: "wm_add_text".}
proc addBool*(event: var Event, boolean: bool) {.importc: "wm_add_bool".}
proc concat(parts: ptr Text, count: csize_t): Text {.importc: "wm_concat".}
proc lower*(text: Text): Text {.importc: "wm_lower".}
proc firstCharacter*(text: Text): Text {.importc: "wm_first_character".}
proc fromLast*(text: Text, byte: char): Text {.importc: "wm_from_last".}
proc decimal*(number: int64): Text {.importc: "wm_decimal".}
proc textOf*(literal: cstring): Text {.importc: "wm_text_of".}
proc equal(a, b: Text): bool {.importc: "wm_equal".}
{.pop.}

proc `==`*(text: Text, literal: static string): bool = equal(text, textOf(literal))

proc concat*(parts: varargs[Text]): Text = concat(unsafeAddr parts[0], parts.len.csize_t)

template plugin*(name, version: static string) =
  ## Name and version, once.
  {.emit: "WALMILL_PLUGIN(\"" & name & "\", \"" & version & "\");".}
