//! The search for all needles at once, a byte at a time (Aho and Corasick, 1975): one state for each beginning of a needle.
//!
//! It is made here, and not by a crate, for three things: a search can be made in bounded steps, so that nobody waits for
//! it; a state tells how much of the text before it could still become a needle; and its memory is bounded by its needles'.

use std::sync::Arc;

/// A beginning of a needle. The text so far ends with it, and with no longer one.
pub(super) type State = u32;

/// The empty beginning.
pub(super) const ROOT: State = 0;

/// A state with more children than this has a table of them, so that no byte of a text costs more than as many looks.
const CHAIN_MAX: u32 = 16;

/// Says that there is no table.
const NO_TABLE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Node {
    /// The newest child, [`ROOT`] for none.
    child: State,
    /// The next child of the same parent, [`ROOT`] for none.
    sibling: State,
    children: u32,
    table: u32,
    /// The longest beginning of a needle that this one ends with, beside itself.
    fail: State,
    /// The length of this beginning.
    depth: u32,
    /// The length of the longest whole needle that this beginning ends with, 0 for none.
    whole: u32,
    byte: u8,
}

impl Node {
    const fn new(depth: u32, byte: u8) -> Self {
        Self { child: ROOT, sibling: ROOT, children: 0, table: NO_TABLE, fail: ROOT, depth, whole: 0, byte }
    }
}

/// A search that is ready.
pub(super) struct Automaton {
    nodes: Vec<Node>,
    tables: Vec<[State; 256]>,
    /// Looks at states so far.
    #[cfg(test)]
    pub(super) looks: std::cell::Cell<usize>,
}

impl Automaton {
    /// For no needles. `bytes` is how many there will be room for.
    pub(super) fn new(bytes: usize) -> Self {
        let mut nodes = Vec::with_capacity(bytes + 1);
        // Where most of a text is read has a table from the beginning.
        nodes.push(Node { table: 0, ..Node::new(0, 0) });
        Self {
            nodes,
            tables: vec![[ROOT; 256]],
            #[cfg(test)]
            looks: std::cell::Cell::new(0),
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    fn node(&self, state: State) -> &Node {
        #[cfg(test)]
        self.looks.set(self.looks.get() + 1);
        &self.nodes[state as usize]
    }

    fn child(&self, of: State, byte: u8) -> Option<State> {
        let node = self.node(of);
        if let Some(table) = self.tables.get(node.table as usize) {
            return Some(table[usize::from(byte)]).filter(|child| *child != ROOT);
        }
        let mut child = node.child;
        while child != ROOT {
            let node = self.node(child);
            if node.byte == byte {
                return Some(child);
            }
            child = node.sibling;
        }
        None
    }

    /// The state after one more byte. Over a text these are at most two looks at states a byte, and chains of children.
    pub(super) fn next(&self, mut state: State, byte: u8) -> State {
        loop {
            match self.child(state, byte) {
                Some(child) => return child,
                None if state == ROOT => return ROOT,
                None => state = self.node(state).fail,
            }
        }
    }

    /// Whether a needle begins with this byte.
    pub(super) fn begins(&self, byte: u8) -> bool {
        self.tables[0][usize::from(byte)] != ROOT
    }

    /// The longest needle that ends here, 0 for none.
    pub(super) fn whole(&self, state: State) -> usize {
        self.node(state).whole as usize
    }

    /// The longest ending that a needle goes on from: a whole needle that is the beginning of no other one is none.
    pub(super) fn open(&self, mut state: State) -> State {
        while state != ROOT && self.node(state).child == ROOT {
            state = self.node(state).fail;
        }
        state
    }

    pub(super) fn depth(&self, state: State) -> usize {
        self.node(state).depth as usize
    }

    /// The child by this byte, made where there is none.
    fn grow(&mut self, of: State, byte: u8) -> State {
        if let Some(child) = self.child(of, byte) {
            return child;
        }
        // There are fewer states than bytes that may be masked.
        let child = State::try_from(self.nodes.len()).unwrap_or(ROOT);
        let parent = &mut self.nodes[of as usize];
        let node = Node { sibling: parent.child, ..Node::new(parent.depth + 1, byte) };
        (parent.child, parent.children) = (child, parent.children + 1);
        let (table, is_wide) = (parent.table, parent.children > CHAIN_MAX);
        self.nodes.push(node);
        if let Some(table) = self.tables.get_mut(table as usize) {
            table[usize::from(byte)] = child;
        } else if is_wide {
            self.make_table(of);
        }
        child
    }

    fn make_table(&mut self, of: State) {
        let mut table = [ROOT; 256];
        let mut child = self.nodes[of as usize].child;
        while child != ROOT {
            let node = self.nodes[child as usize];
            table[usize::from(node.byte)] = child;
            child = node.sibling;
        }
        self.nodes[of as usize].table = u32::try_from(self.tables.len()).unwrap_or(NO_TABLE);
        self.tables.push(table);
    }
}

/// A search that is being made.
pub(super) struct Building {
    automaton: Automaton,
    /// It will find so many of the needles, the first ones.
    pub(super) needles: usize,
    /// The needle that is being taken in, and what of it is.
    needle: usize,
    taken: usize,
    at: State,
    /// States by their depth; those before `next` are done.
    order: Vec<State>,
    next: usize,
}

impl Building {
    /// Begins with `needles` needles of so many bytes together.
    pub(super) fn new(needles: usize, bytes: usize) -> Self {
        let mut order = Vec::with_capacity(bytes + 1);
        order.push(ROOT);
        Self { automaton: Automaton::new(bytes), needles, needle: 0, taken: 0, at: ROOT, order, next: 0 }
    }

    /// Goes on for about `most` states; says whether it is done.
    pub(super) fn go_on(&mut self, needles: &[Arc<[u8]>], most: usize) -> bool {
        let mut left = most;
        while self.needle < self.needles {
            let needle = &needles[self.needle];
            let end = self.taken.saturating_add(left).min(needle.len());
            for byte in &needle[self.taken..end] {
                self.at = self.automaton.grow(self.at, *byte);
            }
            left -= end - self.taken;
            self.taken = end;
            if end < needle.len() {
                return false;
            }
            let node = &mut self.automaton.nodes[self.at as usize];
            node.whole = node.depth;
            (self.needle, self.taken, self.at) = (self.needle + 1, 0, ROOT);
        }
        while let Some(state) = self.order.get(self.next).copied() {
            if left == 0 {
                return false;
            }
            left -= 1;
            self.next += 1;
            self.link_children(state);
        }
        true
    }

    /// Tells the children of a state where to go on when none of theirs is next. Those of all shorter beginnings know it.
    fn link_children(&mut self, of: State) {
        let parent = self.automaton.nodes[of as usize];
        let mut child = parent.child;
        while child != ROOT {
            let node = self.automaton.nodes[child as usize];
            let fail = if of == ROOT { ROOT } else { self.automaton.next(parent.fail, node.byte) };
            let within = self.automaton.nodes[fail as usize].whole;
            let linked = &mut self.automaton.nodes[child as usize];
            linked.fail = fail;
            linked.whole = linked.whole.max(within);
            self.order.push(child);
            child = node.sibling;
        }
    }

    /// The search, once [`Self::go_on`] has said that it is done.
    pub(super) fn done(self) -> Automaton {
        self.automaton
    }
}
