/// The part of walmill.h that a plugin in D (-betterC) needs: see there.
module walmill;

extern (C):

struct Text {
    const(char)* ptr;
    size_t len;

    this(string text) {
        ptr = text.ptr;
        len = text.length;
    }

    const(char)[] slice() const {
        return ptr[0 .. len];
    }
}

struct Plugin {
    const(char)* name, version_, configSchema;
}

struct Config;
struct Shape;

struct Relation {
    uint id;
    Text schema, table;
    const(void)* columns;
    size_t columnCount;
    bool fullOldRows;
}

struct Plan {
    const(Relation)* relation;
    void* data;
    void* answer;
}

enum Tag : ubyte {
    null_ = 0,
    boolean = 1,
    integer = 2,
    text = 16,
}

struct Cell {
    Tag tag;
    union {
        bool boolean;
        long integer;
        double real_;
        Text text;
    }
}

struct Batch;

struct Event {
    Batch* batch;
    uint index, relation;
    ubyte op;
    void* data;
    uint start, count, width;
}

static assert(Cell.sizeof == 16 && Event.sizeof == 32 && Relation.sizeof == 32);

uint wm_need(Plan*, const(char)* name);
Shape* wm_shape_of(Plan*);
void wm_shape_computed(Shape*, Text name, Tag);

bool wm_next_row(Batch*, Event*);
Cell wm_get(const(Event)*, uint index);
Text wm_get_text(const(Event)*, uint index);
void wm_drop(const(Event)*);
void wm_reject(const(Event)*, Text reason);
void wm_send(const(Event)*, Text stream);
void wm_emit(const(Event)*, uint shape);
void wm_add(const(Event)*, Cell);

Text wm_concat(const(Text)* parts, size_t count);
Text wm_lower(Text);
Text wm_first_character(Text);
Text wm_from_last(Text, char);
Text wm_decimal(long);
