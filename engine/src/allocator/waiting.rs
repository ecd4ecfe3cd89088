//! Pages that nothing refers to now, but a checkpoint that is kept does: the durable one, the running one, or one with a pin.
//!
//! Invariants:
//! - Checkpoints are kept in the order of their numbers, and one that comes to be kept refers to no page that waits already.
//! - The kept checkpoints that refer to a page are neighbours: from the first that has it to the last before it was freed. A
//!   page waits in the one set that is named after the first and the last of these, so a checkpoint that goes gives up
//!   whole sets: at a cost of the file's bitmap, however many pages wait.

use std::collections::BTreeMap;

use mesh_base::{CheckpointNo, PageNo};

use super::Bitmap;

/// The first and the last of the kept checkpoints that refer to the pages of a set.
type Span = (CheckpointNo, CheckpointNo);

/// The pages that wait, by who needs them.
#[derive(Default)]
pub(super) struct Waiting {
    /// How many reasons there are to keep each checkpoint.
    kept: BTreeMap<CheckpointNo, usize>,
    sets: BTreeMap<Span, Bitmap>,
}

impl Waiting {
    /// Keeps what a checkpoint refers to, until [`Waiting::let_go`] as often.
    pub(super) fn keep(&mut self, checkpoint: CheckpointNo) {
        *self.kept.entry(checkpoint).or_default() += 1;
    }

    /// Takes in a run of pages of a file of so many that was written for checkpoint `born` and is not part of `died`. False
    /// if no kept checkpoint refers to it.
    pub(super) fn insert(
        &mut self,
        (page, pages): (PageNo, u64),
        born: CheckpointNo,
        died: CheckpointNo,
        file_pages: u64,
    ) -> bool {
        let mut needing = self.kept.range(born..died).map(|(checkpoint, _)| *checkpoint);
        let Some(first) = needing.next() else { return false };
        let set = self.sets.entry((first, needing.next_back().unwrap_or(first))).or_default();
        set.grow(file_pages.saturating_sub(set.len()));
        set.set_run(page.get(), pages);
        true
    }

    /// Takes back one reason to keep a checkpoint; the pages that nobody needs any more.
    pub(super) fn let_go(&mut self, checkpoint: CheckpointNo) -> Option<Bitmap> {
        let reasons = self.kept.get_mut(&checkpoint)?;
        *reasons -= 1;
        if *reasons > 0 {
            return None;
        }
        self.kept.remove(&checkpoint);
        let mut free = None;
        for ((first, last), set) in std::mem::take(&mut self.sets) {
            let mut needing = self.kept.range(first..=last).map(|(checkpoint, _)| *checkpoint);
            let Some(first) = needing.next() else {
                assert!(free.is_none(), "two sets of pages that {checkpoint} alone needs");
                free = Some(set);
                continue;
            };
            let span = (first, needing.next_back().unwrap_or(first));
            self.sets.entry(span).or_default().unite(&set);
        }
        free
    }

    /// The file ends here now. No page behind it waits.
    pub(super) fn truncate(&mut self, file_pages: u64) {
        for set in self.sets.values_mut().filter(|set| set.len() > file_pages) {
            assert!(set.end() <= file_pages, "the file is cut where pages wait");
            set.truncate(file_pages);
        }
    }

    /// The pages of each set.
    pub(super) fn sets(&self) -> impl Iterator<Item = &Bitmap> {
        self.sets.values()
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    const PAGES: u64 = 300;

    /// What waits as a list, and the reasons to keep checkpoints: the plain way to the same answers.
    #[derive(Default)]
    struct Model {
        kept: Vec<CheckpointNo>,
        waiting: Vec<(u64, CheckpointNo, CheckpointNo)>,
    }

    impl Model {
        fn needs(&self, (_, born, died): (u64, CheckpointNo, CheckpointNo)) -> bool {
            self.kept.iter().any(|kept| (born..died).contains(kept))
        }

        fn let_go(&mut self, checkpoint: CheckpointNo) -> Vec<u64> {
            let at = self.kept.iter().position(|kept| *kept == checkpoint);
            self.kept.remove(at.unwrap());
            let (waiting, free): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.waiting).into_iter().partition(|run| self.needs(*run));
            self.waiting = waiting;
            let mut pages: Vec<u64> = free.into_iter().map(|(page, ..)| page).collect();
            pages.sort_unstable();
            pages
        }
    }

    quickcheck! {
        fn a_page_waits_as_long_as_a_kept_checkpoint_refers_to_it(steps: Vec<(u8, u8, bool)>) -> bool {
            let (mut waiting, mut model) = (Waiting::default(), Model::default());
            let mut epoch = CheckpointNo(1);
            for (page, choice, is_pin) in steps {
                let kept = model.kept.get(usize::from(choice) % model.kept.len().max(1)).copied();
                match (choice % 4, kept) {
                    (0, _) => {
                        waiting.keep(epoch);
                        model.kept.push(epoch);
                        epoch = epoch.next();
                    }
                    (1, Some(newest)) if is_pin => {
                        waiting.keep(newest);
                        model.kept.push(newest);
                    }
                    (1, Some(old)) => {
                        let free = waiting.let_go(old);
                        let free = free.map_or(Vec::new(), |set| (0..set.len()).filter(|at| set.get(*at)).collect());
                        assert_eq!(free, model.let_go(old));
                    }
                    _ => {
                        let page = u64::from(page);
                        let born = CheckpointNo(1 + u64::from(choice) % epoch.get());
                        let waits = model.waiting.iter().any(|(other, ..)| *other == page);
                        if waits || born == epoch {
                            continue;
                        }
                        let run = (page, born, epoch);
                        assert_eq!(waiting.insert((PageNo(page), 1), born, epoch, PAGES), model.needs(run));
                        if model.needs(run) {
                            model.waiting.push(run);
                        }
                    }
                }
            }
            waiting.sets().map(Bitmap::ones).sum::<u64>() == model.waiting.len() as u64
        }
    }
}
