@file:OptIn(kotlin.wasm.unsafe.UnsafeWasmMemoryApi::class, kotlin.wasm.ExperimentalWasmInterop::class)

// The canonical ABI of walmill:plugin@0.1.0, by hand, and views of what crosses it. Kotlin's
// objects are WebAssembly's own; only what crosses is in linear memory. Kotlin's texts are UTF-16,
// walmill's are UTF-8, so each is converted as it is read or written.

import kotlin.wasm.WasmExport
import kotlin.wasm.unsafe.Pointer
import kotlin.wasm.unsafe.withScopedMemoryAllocator

/** What you write, under the name `plugin`. */
interface Plugin {
    val name: String
    val version: String

    /** Says what the plugin needs of a table. */
    fun relation(relation: Relation, plan: Plan)

    /** Judges an event: pass, until something else is said. */
    fun judge(event: Event)
}

// ---- memory

/** Below are the standard library's own short-lived allocations. */
private const val START = 1 shl 20
private var top = START
private var end = 0

/** Room that is free again when the call is answered. */
private fun room(size: Int, alignment: Int): Int {
    val start = (top + alignment - 1) and -alignment
    top = start + size
    if (top > end) {
        // An allocation makes the memory grow, and it stays so.
        end = top + (1 shl 18)
        withScopedMemoryAllocator { it.allocate(end) }
    }
    return start
}

private fun at(address: Int) = Pointer(address.toUInt())
private fun int(address: Int): Int = at(address).loadInt()
private fun byte(address: Int): Int = at(address).loadByte().toInt() and 0xff
private fun put(address: Int, value: Int) = at(address).storeInt(value)

private fun text(address: Int, length: Int): String =
    ByteArray(length) { at(address + it).loadByte() }.decodeToString()

/** The text that a pair of address and length at [pair] stands for. */
private fun textAt(pair: Int): String = text(int(pair), int(pair + 4))

private fun putText(pair: Int, text: String) {
    val bytes = text.encodeToByteArray()
    val to = room(bytes.size, 1)
    bytes.forEachIndexed { index, byte -> at(to + index).storeByte(byte) }
    putList(pair, to, bytes.size)
}

private fun putList(pair: Int, address: Int, length: Int) {
    put(pair, address)
    put(pair + 4, length)
}

private fun putInts(pair: Int, ints: List<Int>) {
    val to = room(4 * ints.size, 4)
    ints.forEachIndexed { index, int -> put(to + 4 * index, int) }
    putList(pair, to, ints.size)
}

private fun putTexts(pair: Int, texts: List<String>) {
    val to = room(8 * texts.size, 4)
    texts.forEachIndexed { index, text -> putText(to + 8 * index, text) }
    putList(pair, to, texts.size)
}

/** Room for an answer, with nothing in it. */
private fun answer(size: Int): Int {
    val to = room(size, 8)
    for (word in 0 until size step 4) put(to + word, 0)
    return to
}

@WasmExport("cabi_realloc")
fun reallocate(old: Int, oldSize: Int, alignment: Int, size: Int): Int {
    val to = room(size, alignment)
    for (index in 0 until minOf(oldSize, size)) at(to + index).storeByte(at(old + index).loadByte())
    return to
}

// ---- lifecycle

@WasmExport("walmill:plugin/lifecycle@0.1.0#describe")
fun exportDescribe(): Int {
    val answer = answer(32)
    putText(answer, plugin.name)
    putText(answer + 8, plugin.version)
    return answer
}

@WasmExport("walmill:plugin/lifecycle@0.1.0#init")
fun exportInit(config: Int, length: Int, worker: Int, workers: Int, dryRun: Int): Int = answer(12)

@WasmExport("cabi_post_walmill:plugin/lifecycle@0.1.0#init")
fun afterInit(answer: Int) {
    top = START
}

// ---- tables and plans

class Column(val name: String, val typeName: String, val tag: Int, val key: Boolean)

class Relation(
    val id: Int,
    val schema: String,
    val table: String,
    val columns: List<Column>,
    val fullOldRows: Boolean,
)

object Tag {
    const val NULL = 0
    const val BOOL = 1
    const val INT = 2
    const val TEXT = 16
    const val UNCHANGED = 32
    const val ABSENT = 33
}

/** What the plugin needs of a table. */
class Plan(private val relation: Relation) {
    internal val needs = mutableListOf<Int>()
    internal var refusal: String? = null

    /** Columns of the one shape that may be emitted: a name, and an input or a tag. */
    internal val shape = mutableListOf<Source>()

    internal class Source(val name: String, val computed: Boolean, val number: Int)

    /** Asks for a column: the first is cell 0. A table without it is refused. */
    fun need(name: String) {
        val index = relation.columns.indexOfFirst { it.name == name }
        if (index < 0 && refusal == null) refusal = "no column `$name`"
        needs += index
    }

    /** Rows may be emitted with every column of the table in its place. */
    fun shapeOfTable() {
        relation.columns.forEachIndexed { index, column -> shape += Source(column.name, false, index) }
    }

    /** A column that the plugin computes, in place of the one of that name or behind the others. */
    fun computed(name: String, tag: Int) {
        val index = shape.indexOfFirst { it.name == name }
        if (index < 0) shape += Source(name, true, tag) else shape[index] = Source(name, true, tag)
    }
}

/** How many cells a table's rows have, by its id. */
private val widths = HashMap<Int, Int>()

@WasmExport("walmill:plugin/transform@0.1.0#on-relation")
fun exportOnRelation(
    id: Int, schema: Int, schemaLength: Int, table: Int, tableLength: Int,
    columns: Int, count: Int, fullOldRows: Int,
): Int {
    val list = List(count) {
        val column = columns + 24 * it
        Column(textAt(column), textAt(column + 12), byte(column + 20), byte(column + 21) != 0)
    }
    val relation =
        Relation(id, text(schema, schemaLength), text(table, tableLength), list, fullOldRows != 0)
    val plan = Plan(relation)
    plugin.relation(relation, plan)
    widths[id] = plan.needs.size
    val answer = answer(36)
    val refusal = plan.refusal
    if (refusal != null) {
        put(answer, 1)
        putText(answer + 4, refusal)
    } else {
        putPlan(answer + 4, plan)
    }
    return answer
}

private fun putPlan(to: Int, plan: Plan) {
    putInts(to + 4, plan.needs)
    if (plan.shape.isEmpty()) return
    val shape = answer(20)
    val columns = answer(20 * plan.shape.size)
    plan.shape.forEachIndexed { index, source ->
        val column = columns + 20 * index
        putText(column, source.name)
        put(column + 8, if (source.computed) 1 else 0)
        put(column + 12, source.number)
    }
    putList(shape + 12, columns, plan.shape.size)
    putList(to + 16, shape, 1)
}

@WasmExport("cabi_post_walmill:plugin/transform@0.1.0#on-relation")
fun afterOnRelation(answer: Int) {
    top = START
}

// ---- events

enum class Op { INSERT, UPDATE, DELETE, TRUNCATE, MESSAGE, SNAPSHOT, OTHER }

/** One value; a text that is not asked for is not converted. */
class Cell internal constructor(val tag: Int, private val bits: Long, private val heap: Int) {
    val text: String?
        get() = if (tag != Tag.TEXT) null else text(heap + (bits ushr 32).toInt(), bits.toInt())
    val long: Long?
        get() = if (tag != Tag.INT) null else bits
}

/** A change, and what is said of it. */
class Event internal constructor(private val batch: Int, private val index: Int, private val out: Outcome) {
    val op: Op = Op.entries[minOf(byte(int(batch + 4) + index), Op.OTHER.ordinal)]
    private val width = widths[int(int(batch + 12) + 4 * index)] ?: 0

    /** The cell of the column that was asked for as number [number]. */
    fun cell(number: Int): Cell {
        val starts = int(batch + 36) + 4 * index
        val place = int(starts) + number
        if (number >= width || place >= int(starts + 4)) return Cell(Tag.ABSENT, 0, 0)
        val bits = at(int(batch + 52) + 8 * place).loadLong()
        return Cell(byte(int(batch + 44) + place), bits, int(batch + 60))
    }

    /** The event goes nowhere. */
    fun drop() {
        out.verdicts[index] = 1
    }

    /** The event goes to the dead letters, with the reason. */
    fun reject(reason: String) {
        out.verdicts[index] = 3
        out.reasons += reason
    }

    /** The event goes to another stream. */
    fun send(stream: String) {
        val known = out.routes.indexOf(stream)
        if (known < 0) out.routes += stream
        out.eventRoutes[index] = if (known < 0) out.routes.size else known + 1
    }

    /** The event becomes a row of the plan's shape; add its computed cells, in order. */
    fun emit() {
        out.verdicts[index] = 2
        out.rowEvents += index
        out.starts += out.tags.size
    }

    fun add(text: String) {
        val bytes = text.encodeToByteArray()
        out.add(Tag.TEXT, (out.heapSize.toLong() shl 32) or bytes.size.toLong())
        out.heap += bytes
        out.heapSize += bytes.size
    }

    fun add(truth: Boolean) = out.add(Tag.BOOL, if (truth) 1 else 0)

    /** Null, unchanged or absent, as another cell is. */
    fun addNone(cell: Cell) = out.add(cell.tag, 0)
}

/** The answer, as it grows. */
internal class Outcome(count: Int) {
    val verdicts = IntArray(count)
    val eventRoutes = IntArray(count)
    val rowEvents = mutableListOf<Int>()
    val starts = mutableListOf<Int>()
    val tags = mutableListOf<Int>()
    val data = mutableListOf<Long>()
    val heap = mutableListOf<ByteArray>()
    var heapSize = 0
    val routes = mutableListOf<String>()
    val reasons = mutableListOf<String>()

    fun add(tag: Int, bits: Long) {
        tags += tag
        data += bits
    }
}

private fun putBytes(pair: Int, size: Int, byteAt: (Int) -> Int) {
    val to = room(size, 1)
    for (index in 0 until size) at(to + index).storeByte(byteAt(index).toByte())
    putList(pair, to, size)
}

private fun putHeap(pair: Int, out: Outcome) {
    val to = room(out.heapSize, 1)
    var end = to
    for (bytes in out.heap) for (byte in bytes) at(end++).storeByte(byte)
    putList(pair, to, out.heapSize)
}

@WasmExport("walmill:plugin/transform@0.1.0#process")
fun exportProcess(batch: Int): Int {
    val count = int(batch)
    val out = Outcome(count)
    for (index in 0 until count) plugin.judge(Event(batch, index, out))
    val answer = answer(92)
    putBytes(answer + 4, count) { out.verdicts[it] }
    if (out.routes.isNotEmpty()) putInts(answer + 12, out.eventRoutes.asList())
    putTexts(answer + 76, out.routes)
    putTexts(answer + 84, out.reasons)
    if (out.rowEvents.isEmpty()) return answer
    putInts(answer + 20, out.rowEvents)
    putInts(answer + 28, List(out.rowEvents.size) { 0 })
    putInts(answer + 44, out.starts + out.tags.size)
    putBytes(answer + 52, out.tags.size) { out.tags[it] }
    val data = room(8 * out.data.size, 8)
    out.data.forEachIndexed { index, bits -> at(data + 8 * index).storeLong(bits) }
    putList(answer + 60, data, out.data.size)
    putHeap(answer + 68, out)
    return answer
}

@WasmExport("cabi_post_walmill:plugin/transform@0.1.0#process")
fun afterProcess(answer: Int) {
    top = START
}
