//! Invented people of Malaysia, the same for the same seed.

use std::collections::BTreeSet;
use std::fmt;

use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use wa_core::domain::phone::{Phone, Region};
use wa_core::seed::Seed;

/// An invented person.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Person {
    pub name: String,
    pub phone: Phone,
    pub niche: &'static str,
    pub city: &'static str,
}

impl fmt::Debug for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Person")
            .field("phone", &self.phone)
            .field("niche", &self.niche)
            .finish_non_exhaustive()
    }
}

pub(super) const NICHES: [&str; 5] = ["kursus digital", "hartanah", "kesihatan", "perlancongan", "automotif"];
const CITIES: [&str; 8] = [
    "Shah Alam",
    "Johor Bahru",
    "Ipoh",
    "Kuantan",
    "George Town",
    "Kota Kinabalu",
    "Kuching",
    "Seremban",
];

const MALAY_MEN: [&str; 10] = [
    "Muhammad Faiz",
    "Ahmad Danial",
    "Mohd Hafiz",
    "Amirul",
    "Syafiq",
    "Khairul Anuar",
    "Zulkifli",
    "Wan Azlan",
    "Iskandar",
    "Farhan",
];
const MALAY_WOMEN: [&str; 10] = [
    "Nur Aisyah",
    "Siti Hajar",
    "Nurul Izzah",
    "Farah",
    "Noraini",
    "Puteri Balqis",
    "Wan Suraya",
    "Hidayah",
    "Rohani",
    "Aina Sofea",
];
const MALAY_FATHERS: [&str; 8] = [
    "Ahmad", "Ismail", "Rahman", "Abdullah", "Yusof", "Hassan", "Osman", "Ibrahim",
];
const CHINESE_FAMILIES: [&str; 10] = ["Tan", "Lim", "Lee", "Wong", "Ng", "Chong", "Teoh", "Goh", "Yap", "Chin"];
const CHINESE_NAMES: [&str; 10] = [
    "Wei Ling",
    "Chee Keong",
    "Mei Yee",
    "Jia Hao",
    "Siew Lan",
    "Kah Wai",
    "Xin Yi",
    "Boon Hock",
    "Pei Shan",
    "Zhi Wei",
];
const INDIAN_MEN: [&str; 8] = [
    "Arun Kumar",
    "Suresh",
    "Prakash",
    "Vijay",
    "Ganesan",
    "Ravi",
    "Kumaran",
    "Dinesh",
];
const INDIAN_WOMEN: [&str; 8] = [
    "Priya", "Kavitha", "Shanti", "Deepa", "Letchumi", "Anjali", "Malathi", "Revathi",
];
const INDIAN_FATHERS: [&str; 6] = ["Subramaniam", "Rajan", "Muthu", "Krishnan", "Perumal", "Nadarajan"];

/// Mobile networks of Malaysia with seven digits after the prefix.
const NETWORKS: [&str; 6] = ["6012", "6013", "6016", "6017", "6018", "6019"];

/// `count` people with different numbers.
pub(crate) fn people(seed: u64, count: usize) -> Vec<Person> {
    let mut rng = Seed::from_number(seed).rng(b"people", "demo");
    let mut taken = BTreeSet::new();
    let pick = |from: &[&'static str], rng: &mut _| *from.choose(rng).expect("the lists of names are not empty");
    std::iter::from_fn(|| {
        let name = match rng.random_range(0..100) {
            0..3 => String::new(),
            3..30 => format!("{} bin {}", pick(&MALAY_MEN, &mut rng), pick(&MALAY_FATHERS, &mut rng)),
            30..60 => format!(
                "{} binti {}",
                pick(&MALAY_WOMEN, &mut rng),
                pick(&MALAY_FATHERS, &mut rng)
            ),
            60..85 => format!(
                "{} {}",
                pick(&CHINESE_FAMILIES, &mut rng),
                pick(&CHINESE_NAMES, &mut rng)
            ),
            85..93 => format!(
                "{} a/l {}",
                pick(&INDIAN_MEN, &mut rng),
                pick(&INDIAN_FATHERS, &mut rng)
            ),
            _ => format!(
                "{} a/p {}",
                pick(&INDIAN_WOMEN, &mut rng),
                pick(&INDIAN_FATHERS, &mut rng)
            ),
        };
        let phone = loop {
            let digits = format!(
                "{}{}",
                pick(&NETWORKS, &mut rng),
                rng.random_range(2_000_000..10_000_000)
            );
            match Phone::parse(&digits, &Region::MY) {
                Ok(phone) if taken.insert(phone) => break phone,
                _ => {}
            }
        };
        Some(Person {
            name,
            phone,
            niche: pick(&NICHES, &mut rng),
            city: pick(&CITIES, &mut rng),
        })
    })
    .take(count)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_thousand_people_have_different_numbers_and_are_the_same_for_the_same_seed() {
        let first = people(1, 2_000);
        assert_eq!(first, people(1, 2_000));
        assert_ne!(first, people(2, 2_000));
        let phones: BTreeSet<_> = first.iter().map(|person| person.phone).collect();
        assert_eq!(phones.len(), 2_000);
        for part in [" bin ", " binti ", " a/l ", " a/p ", "Tan "] {
            assert!(first.iter().any(|person| person.name.contains(part)), "{part}");
        }
    }
}
