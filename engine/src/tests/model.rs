//! The store against a sorted map, over every operation, with crashes at any I/O.

use std::collections::BTreeMap;

use mesh_base::{CheckpointNo, Namespace, PageNo, Revision};
use quickcheck::{Gen, QuickCheck};

use super::disk::Crash;
use super::driver::{IDENTITY, Rig, Run, SOURCE, TurnedOff, USER, put, small};
use crate::tree::{PackPlan, PackPoint};
use crate::*;

/// All versions of all keys, and the horizon.
#[derive(Clone, Default, PartialEq, Debug)]
pub(crate) struct Model {
    pub(crate) versions: BTreeMap<Vec<u8>, BTreeMap<u64, Option<Vec<u8>>>>,
    pub(crate) system: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) horizon: u64,
}

impl Model {
    fn get(&self, key: &[u8], at: u64) -> Option<Vec<u8>> {
        self.versions.get(key)?.range(..=at).next_back()?.1.clone()
    }

    fn live(&self, at: u64) -> Vec<(Vec<u8>, u64, Vec<u8>)> {
        let newest = self.versions.iter().filter_map(|(key, versions)| {
            let (revision, value) = versions.range(..=at).next_back()?;
            Some((key.clone(), *revision, value.clone()?))
        });
        newest.collect()
    }

    /// What can still be seen at or above a horizon.
    fn visible(&self) -> BTreeMap<Vec<u8>, BTreeMap<u64, Option<Vec<u8>>>> {
        let mut visible = self.versions.clone();
        for versions in visible.values_mut() {
            if let Some((newest, _)) = versions.range(..=self.horizon).next_back() {
                let newest = *newest;
                versions.retain(|revision, _| *revision >= newest);
            }
            if versions
                .first_key_value()
                .is_some_and(|(revision, value)| *revision <= self.horizon && value.is_none())
            {
                versions.pop_first();
            }
        }
        visible.retain(|_, versions| !versions.is_empty());
        visible
    }
}

struct World {
    rig: Rig,
    model: Model,
    saved: BTreeMap<CheckpointNo, Model>,
    revision: u64,
    last: Option<(Vec<u8>, u64, Option<Vec<u8>>)>,
}

fn key_of(number: u16) -> Vec<u8> {
    let number = number % 150;
    let length = match number % 10 {
        0 => 500,
        1 => 100,
        _ => 8,
    };
    let mut key = format!("{number:05}-").into_bytes();
    key.resize(length.max(key.len()), b'k');
    key.rotate_left(usize::from(number % 3));
    key
}

fn value_of(number: u16, revision: u64) -> Vec<u8> {
    let size = match number % 40 {
        0 => 70_000,
        1..=3 => 5000,
        4..=9 => 1000,
        _ => usize::from(number % 97),
    };
    (0..size).map(|index| (index as u64 * 13 + revision) as u8).collect()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rig = Rig::with_store(seed, small());
        rig.done.clear();
        let saved = BTreeMap::from([(CheckpointNo(1), Model::default())]);
        Self { rig, model: Model::default(), saved, revision: 10, last: None }
    }

    fn durable(&mut self) -> CheckpointNo {
        self.rig.store().checkpoint().checkpoint
    }

    /// Does one operation; a crash in the middle of it is a part of the game.
    fn step(&mut self, op: (u8, u16, u16)) {
        if let Err(TurnedOff) = self.try_step(op) {
            self.recover([Crash::Tear, Crash::LoseAll, Crash::KeepAll, Crash::Kill][usize::from(op.2 % 4)]);
        }
    }

    fn try_step(&mut self, (kind, a, b): (u8, u16, u16)) -> Run<()> {
        match kind % 32 {
            0..=8 => self.put_batch(a, b),
            9..=10 => self.delete(a),
            11 => self.replay(),
            12 => self.system(a, b),
            13..=14 => self.raise_horizon(a),
            15..=16 => self.begin_checkpoint(),
            17..=19 => (0..a % 20).try_for_each(|_| self.rig.turn().map(Result::unwrap)),
            20..=22 => self.check_get(a, b),
            23..=25 => self.check_scan(a, b),
            26 if a % 2 == 0 => self.sweep(a),
            26 => self.rest(a, b),
            27 => {
                self.rig.turn_off_at = Some(self.rig.disk.completed + usize::from(a % 60));
                Ok(())
            }
            28 => self.verify(),
            29 => self.rig.finish_checkpoint(),
            30 if a % 8 == 0 => self.snapshot(),
            30 => self.check_changes(a, b),
            _ => self.hot_key(a),
        }
    }

    fn put_batch(&mut self, a: u16, b: u16) -> Run<()> {
        self.revision += u64::from(b % 3) + 1;
        let revision = self.revision;
        let items: Vec<(Vec<u8>, Vec<u8>)> = (0..=b % 4)
            .map(|index| (key_of(a.wrapping_add(index * 37)), value_of(b.wrapping_add(index), revision)))
            .collect();
        let writes: Vec<CellWrite<'_>> = items.iter().map(|(key, value)| put(key, revision, value)).collect();
        self.rig.write(&writes)?;
        for (key, value) in items {
            self.last = Some((key.clone(), revision, Some(value.clone())));
            self.model.versions.entry(key).or_default().insert(revision, Some(value));
        }
        Ok(())
    }

    /// Many versions of one key, so that they fill more than a leaf.
    fn hot_key(&mut self, a: u16) -> Run<()> {
        let key = key_of(a % 2);
        for _ in 0..a % 12 {
            self.revision += 1;
            let value = vec![self.revision as u8; 700];
            self.rig.put(&key, self.revision, &value)?;
            self.model.versions.entry(key.clone()).or_default().insert(self.revision, Some(value));
        }
        Ok(())
    }

    fn delete(&mut self, a: u16) -> Run<()> {
        self.revision += 1;
        let key = key_of(a);
        self.rig.delete(&key, self.revision)?;
        self.last = Some((key.clone(), self.revision, None));
        self.model.versions.entry(key).or_default().insert(self.revision, None);
        Ok(())
    }

    fn replay(&mut self) -> Run<()> {
        match self.last.clone() {
            Some((key, revision, Some(value))) => self.rig.put(&key, revision, &value),
            Some((key, revision, None)) => self.rig.delete(&key, revision),
            None => Ok(()),
        }
    }

    fn system(&mut self, a: u16, b: u16) -> Run<()> {
        let key = format!("record-{}", a % 20).into_bytes();
        let value = value_of(b, 0);
        let (namespace, revision) = (Namespace::SYSTEM, Revision::ZERO);
        if b.is_multiple_of(3) {
            let change = Change::Remove;
            self.rig.write(&[CellWrite { namespace, key: &key, revision, change }])?;
            self.model.system.remove(&key);
        } else {
            let change = Change::Put { attributes: Attributes::SYSTEM, value: &value };
            self.rig.write(&[CellWrite { namespace, key: &key, revision, change }])?;
            self.model.system.insert(key, value);
        }
        Ok(())
    }

    fn raise_horizon(&mut self, a: u16) -> Run<()> {
        let behind = u64::from(a % 40);
        self.model.horizon = self.model.horizon.max(self.revision.saturating_sub(behind));
        let horizon = Revision(self.model.horizon);
        self.rig.store().set_horizon(horizon);
        Ok(())
    }

    fn begin_checkpoint(&mut self) -> Run<()> {
        if self.rig.store().running_checkpoint().is_none() {
            let no = self.rig.begin_checkpoint(self.revision);
            self.saved.insert(no, self.model.clone());
        }
        Ok(())
    }

    fn check_get(&mut self, a: u16, b: u16) -> Run<()> {
        let key = key_of(a);
        let at = self.model.horizon + u64::from(b) % (self.revision + 2 - self.model.horizon);
        assert_eq!(self.rig.try_get(USER, &key, at)?.unwrap(), self.model.get(&key, at), "{at}");
        let group: Vec<_> =
            (0..b % 12).map(|step| (key_of(a.wrapping_add(step.wrapping_mul(b))), at)).collect();
        let expected: Vec<_> = group.iter().map(|(key, at)| self.model.get(key, *at)).collect();
        assert_eq!(self.rig.get_group(&group)?, expected, "{at}");
        if let Some(below) = self.model.horizon.checked_sub(1) {
            let refused = self.rig.try_get(USER, &key, below)?;
            assert_eq!(refused, Err(StoreError::Compacted { oldest: Revision(self.model.horizon) }));
        }
        let record = format!("record-{}", a % 20).into_bytes();
        let found = self.rig.try_get(Namespace::SYSTEM, &record, u64::MAX)?.unwrap();
        assert_eq!(found, self.model.system.get(&record).cloned());
        Ok(())
    }

    fn check_scan(&mut self, a: u16, b: u16) -> Run<()> {
        let at = self.model.horizon + u64::from(b) % (self.revision + 2 - self.model.horizon);
        let (start, end) = (key_of(a), key_of(b));
        let end = (!b.is_multiple_of(5)).then_some(end);
        let direction = if a.is_multiple_of(2) { ScanDirection::Forward } else { ScanDirection::Reverse };
        let request = ScanRequest {
            namespace: USER,
            start: if a.is_multiple_of(3) { &[] } else { &start },
            end: end.as_deref(),
            direction,
            at: Revision(at),
            want: Want::Value,
            items_max: usize::from(a % 9) + 1,
            bytes_max: if b.is_multiple_of(2) { 3000 } else { usize::MAX },
        };
        let found = self.rig.scan(&request)?;
        let mut expected = self.model.live(at);
        expected
            .retain(|(key, ..)| key.as_slice() >= request.start && end.as_ref().is_none_or(|end| key < end));
        if direction == ScanDirection::Reverse {
            expected.reverse();
        }
        assert_eq!(found, expected, "{request:?}");
        Ok(())
    }

    fn check_changes(&mut self, a: u16, b: u16) -> Run<()> {
        let since = self.revision - u64::from(a % 60).min(self.revision - self.model.horizon);
        let (start, end) = (key_of(a), key_of(b));
        let end = (!b.is_multiple_of(5)).then_some(end);
        let is_changed = |(key, versions): &(&Vec<u8>, &BTreeMap<u64, Option<Vec<u8>>>)| {
            let is_inside = **key >= start && end.as_ref().is_none_or(|end| *key < end);
            is_inside && versions.last_key_value().is_some_and(|(revision, _)| *revision > since)
        };
        let expected = self.model.versions.iter().find(is_changed);
        let expected = expected.map(|(key, versions)| (key.clone(), *versions.last_key_value().unwrap().0));
        let found = self.rig.until_ready(|store| {
            let found = store.change_after(USER, &start, end.as_deref(), Revision(since));
            found.map(|found| {
                found.map(|change| match change {
                    RangeChange::Nothing => None,
                    RangeChange::Key(key, revision) => Some((key.to_vec(), revision.get())),
                    RangeChange::TooMuch => panic!("a small store is too much"),
                })
            })
        })?;
        assert_eq!(found.unwrap(), expected, "since {since} in {start:?}..{end:?}");
        Ok(())
    }

    fn sweep(&mut self, a: u16) -> Run<()> {
        let mut from = None;
        loop {
            let leaves = usize::from(a % 7) + 1;
            let progress = self.rig.until_ready(|store| store.sweep(from.as_ref(), leaves))?.unwrap();
            from = progress.next;
            if from.is_none() {
                return Ok(());
            }
        }
    }

    /// Upkeep, at once more of it than the pace allows in so many ticks.
    fn rest(&mut self, a: u16, b: u16) -> Run<()> {
        let keep = PageNo(16 + u64::from(b % 50));
        self.rig.store().give_up_behind(keep);
        let density = [Density::AsIs, Density::Loose, Density::Dense][usize::from(a % 3)];
        let pages_max = usize::from(a % 40) + 1;
        let plan = PackPlan { density, before: Some(keep), pages_max, bytes_max: usize::from(b) };
        let mut next = Some(PackPoint::first());
        for _ in 0..20 {
            let Some(from) = next else { break };
            let progress = self.rig.until_ready(|store| store.pack(&from, &plan))?.unwrap();
            next = progress.next;
        }
        Ok(())
    }

    fn verify(&mut self) -> Run<()> {
        let report = self.rig.verify()?;
        assert!(report.is_sound(), "{:#?}", report.problems);
        Ok(())
    }

    /// A snapshot of the durable checkpoint, taken while writes go on.
    fn snapshot(&mut self) -> Run<()> {
        let durable = self.durable();
        let image = self.saved[&durable].clone();
        let pin = self.rig.store().pin();
        let mut copy = Rig::new(durable.get(), small());
        copy.file = mesh_base::io::FileId::StagedStore;
        copy.create().unwrap();
        copy.store().begin_ingest(SOURCE);
        let mut from = None;
        loop {
            let chunk = self
                .rig
                .until_ready(|store| store.scan_cells(pin, KeyRange::starting_at(from.as_ref()), 6000))?
                .unwrap();
            copy.until_ready(|store| store.ingest(&chunk.bytes)).unwrap().unwrap();
            if copy.store().dirty_bytes() > 100_000 {
                copy.checkpoint(0).unwrap();
            }
            self.put_batch(chunk.bytes.len() as u16, self.revision as u16)?;
            self.begin_checkpoint()?;
            from = chunk.next;
            if from.is_none() {
                break;
            }
        }
        self.rig.store().unpin(pin);
        copy.store().set_horizon(Revision(image.horizon));
        copy.checkpoint(7).unwrap();
        check_all(&mut copy, &image).unwrap();
        copy.assert_sound();
        Ok(())
    }

    /// Turns the disk on again. The store must be that of the last durable checkpoint, or of the one that ran.
    fn recover(&mut self, crash: Crash) {
        let (least, running) = {
            let store = self.rig.store();
            (store.checkpoint().checkpoint, store.running_checkpoint())
        };
        self.rig.crash(crash);
        self.rig.open(least).unwrap().unwrap();
        let found = self.rig.store().checkpoint();
        assert!(found.checkpoint == least || Some(found.checkpoint) == running, "{found:?}");
        self.model = self.saved[&found.checkpoint].clone();
        self.saved.retain(|no, _| *no == found.checkpoint);
        self.last = None;
        assert_eq!(self.rig.store().identity(), &IDENTITY);
        check_all(&mut self.rig, &self.model).unwrap();
        self.rig.assert_sound();
    }
}

/// Compares all that can be seen.
pub(crate) fn check_all(rig: &mut Rig, model: &Model) -> Run<()> {
    assert_eq!(rig.store().horizon(), Revision(model.horizon));
    for (key, versions) in &model.visible() {
        for (revision, value) in versions.iter().filter(|(revision, _)| **revision >= model.horizon) {
            assert_eq!(&rig.try_get(USER, key, *revision)?.unwrap(), value, "{revision}");
        }
    }
    for at in [u64::MAX, model.horizon] {
        let forward = rig.scan(&super::driver::all(ScanDirection::Forward, at))?;
        assert_eq!(forward, model.live(at), "forward at {at}");
        let mut reverse = rig.scan(&super::driver::all(ScanDirection::Reverse, at))?;
        reverse.reverse();
        assert_eq!(reverse, forward, "reverse at {at}");
    }
    for (key, value) in &model.system {
        assert_eq!(rig.try_get(Namespace::SYSTEM, key, u64::MAX)?.unwrap().as_ref(), Some(value));
    }
    Ok(())
}

fn plays_like_the_model(ops: Vec<(u8, u16, u16)>, seed: u64) -> bool {
    let mut world = World::new(seed);
    for op in ops {
        world.step(op);
    }
    world.rig.turn_off_at = None;
    check_all(&mut world.rig, &world.model).unwrap();
    world.rig.finish_checkpoint().unwrap();
    world.rig.checkpoint(0).unwrap();
    world.rig.assert_sound();
    true
}

#[test]
fn any_run_with_crashes_at_any_io_leaves_the_store_of_a_checkpoint() {
    QuickCheck::new()
        .rng(Gen::new(600))
        .tests(150)
        .quickcheck(plays_like_the_model as fn(Vec<(u8, u16, u16)>, u64) -> bool);
}
