// Orders for the people who ship them: only those that are paid or shipped, masked emails, a mark
// on large orders, one stream per region.

/** The first quantity that a 64-bit float can't tell from its neighbour. */
private const val LARGE = 9_007_199_254_740_993

private const val STATUS = 0
private const val EMAIL = 1
private const val QUANTITY = 2
private const val REGION = 3

val plugin = object : Plugin {
    override val name = "orders"
    override val version = "0.1.0"

    override fun relation(relation: Relation, plan: Plan) {
        listOf("status", "email", "quantity", "region").forEach(plan::need)
        plan.shapeOfTable()
        plan.computed("email", Tag.TEXT)
        plan.computed("large", Tag.BOOL)
    }

    override fun judge(event: Event) = when (event.op) {
        Op.INSERT, Op.UPDATE, Op.SNAPSHOT -> judgeRow(event)
        else -> Unit
    }
}

private fun judgeRow(event: Event) {
    if (event.cell(STATUS).text !in listOf("paid", "shipped")) return event.drop()
    val quantity = event.cell(QUANTITY)
    val count = quantity.long
    if (count != null && count < 0) return event.reject("negative quantity: $count")
    event.emit()
    val email = event.cell(EMAIL)
    email.text?.let { event.add(mask(it)) } ?: event.addNone(email)
    if (count != null) event.add(count >= LARGE) else event.addNone(quantity)
    val region = event.cell(REGION).text
    if (!region.isNullOrEmpty()) event.send("orders." + lower(region))
}

/** `ada@example.com` as `a***@example.com`; what is no address as `***`. */
private fun mask(email: String): String {
    val at = email.lastIndexOf('@')
    if (at < 0) return "***"
    // A character beyond 16 bits is two of UTF-16's.
    val first = if (email[0].isHighSurrogate()) 2 else 1
    return email.take(first) + "***" + email.substring(at)
}

/** ASCII letters in lower case, and no others. */
private fun lower(text: String) =
    text.map { if (it in 'A'..'Z') it + ('a' - 'A') else it }.joinToString("")
