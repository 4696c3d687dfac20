//! Where steps stand in their scope, so that what a step uploads can be put right after it (reference 7).

use serde::{Deserialize, Serialize};

/// Where a step or a group stands. The order of places in one scope is the order of the text.
///
/// A step of the pipeline has a path of one number. What a step uploads has that step's path with two numbers more: one
/// that falls with each further upload of the same step, so that a second upload stands before the first one's, and the
/// position in the upload. So nothing that is stored moves when something is put between.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Place {
    /// Index into `Graph::groups`; `None` is the top level's scope.
    #[serde(default)]
    pub group: Option<u32>,
    /// Empty in graphs of before uploads existed: their order is that of the nodes.
    #[serde(default)]
    pub path: Vec<u32>,
}

impl Place {
    /// The place of the `position`th step of a pipeline's text or of a group's.
    #[must_use]
    pub fn of(group: Option<u32>, position: u32) -> Self {
        Self { group, path: vec![position] }
    }

    /// The place of the `position`th step of what the step here uploads, after `uploads` uploads by it.
    #[must_use]
    pub fn uploaded(&self, uploads: u32, position: u32) -> Self {
        let mut path = self.path.clone();
        path.extend([u32::MAX - uploads, position]);
        Self { group: self.group, path }
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn what_is_uploaded_stands_after_its_step_and_before_what_was_uploaded_earlier() {
        let (first, second) = (Place::of(None, 4), Place::of(None, 5));
        let mut places = vec![
            second.clone(),
            first.uploaded(0, 0),
            first.uploaded(0, 1),
            first.uploaded(1, 0),
            first.uploaded(0, 0).uploaded(0, 7),
            first.clone(),
        ];
        places.sort();
        let expected = [
            first.clone(),
            first.uploaded(1, 0),
            first.uploaded(0, 0),
            first.uploaded(0, 0).uploaded(0, 7),
            first.uploaded(0, 1),
            second,
        ];
        assert_eq!(places, expected);
    }
}
