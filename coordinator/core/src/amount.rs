//! How much some rows are together, or may be: their number, their files, and bytes of those.

use std::iter::Sum;

/// How much some rows are together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many they are.
    pub count: u64,
    /// Files of them.
    pub files: u64,
    /// Bytes of those.
    pub bytes: u64,
}

impl Amount {
    /// Both together.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            files: self.files.saturating_add(other.files),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// Without the other.
    pub(crate) const fn less(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_sub(other.count),
            files: self.files.saturating_sub(other.files),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    /// Whether it is no more than `most`, in nothing.
    pub(crate) const fn fits(self, most: Self) -> bool {
        self.count <= most.count && self.files <= most.files && self.bytes <= most.bytes
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Self::and)
    }
}
