// Keeps the rows of one country: what `scripts/language-figures` measures Kotlin with.

val plugin = object : Plugin {
    override val name = "filter"
    override val version = "0.1.0"

    override fun relation(relation: Relation, plan: Plan) = plan.need("country")

    override fun judge(event: Event) = when (event.op) {
        Op.INSERT, Op.UPDATE, Op.SNAPSHOT -> if (event.cell(0).text != "NZ") event.drop() else Unit
        else -> Unit
    }
}
