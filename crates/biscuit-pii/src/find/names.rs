//! Detection of names of persons with dictionaries of given names and surnames.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use crate::detect::entity::EntityType;
use crate::detect::hit::{Likelihood, PiiHit};
use crate::detect::steps::steps;
use crate::find::detects_by;

/// Detects names of persons with dictionaries. A given name followed by a surname, with initials or further given
/// names between them, is `Likely`; a single name is `Possible`. Words have to begin with a capital letter.
#[derive(Clone)]
pub struct NameDetector {
    given: HashSet<String>,
    surnames: HashSet<String>,
}

/// Frequent given names of the United States (census of 1990 and lists of the Social Security Administration).
const GIVEN: &str = "
    James Mary Robert Patricia John Jennifer Michael Linda David Elizabeth William Barbara Richard Susan Joseph Jessica Thomas Sarah Charles
    Karen Christopher Lisa Daniel Nancy Matthew Betty Anthony Margaret Mark Sandra Donald Ashley Steven Kimberly Paul Emily Andrew Donna
    Joshua Michelle Kenneth Dorothy Kevin Carol Brian Amanda George Melissa Edward Deborah Ronald Stephanie Timothy Rebecca Jason Sharon
    Jeffrey Laura Ryan Cynthia Jacob Kathleen Gary Amy Nicholas Shirley Eric Angela Jonathan Helen Stephen Anna Larry Brenda Justin Pamela
    Scott Nicole Brandon Samantha Benjamin Katherine Samuel Emma Gregory Ruth Frank Christine Alexander Catherine Raymond Debra Patrick
    Rachel Jack Carolyn Dennis Janet Jerry Virginia Tyler Maria Aaron Heather Jose Diane Adam Julie Henry Joyce Nathan Victoria Douglas
    Kelly Zachary Christina Peter Lauren Kyle Joan Walter Evelyn Ethan Olivia Jeremy Judith Harold Megan Keith Cheryl Christian Andrea
    Roger Martha Noah Sophia Gerald Frances Carl Ann Terry Alice Sean Jean Austin Julia Arthur Grace Lawrence Jacqueline Jesse Teresa Dylan
    Hannah Bryan Sara Joe Janice Jordan Gloria Billy Doris Bruce Kathryn Albert Isabella Willie Judy Gabriel Madison Logan Abigail Alan Ava
    Juan Charlotte Wayne Mia Roy Amelia Ralph Harper Randy Natalie Eugene Liam Vincent Lucas Russell Mason Elijah Oliver Bobby Theodore
    Louis Leo Philip Isaac Johnny Julian Carlos Luis Antonio Ana Rosa Carmen Francisco Miguel Manuel Pedro Ada Clara Lucy Ella Chloe Zoe";
/// Frequent surnames of the United States (census of 2010).
const SURNAMES: &str = "
    Smith Johnson Williams Brown Jones Garcia Miller Davis Rodriguez Martinez Hernandez Lopez Gonzalez Wilson Anderson Thomas Taylor Moore
    Jackson Martin Lee Perez Thompson White Harris Sanchez Clark Ramirez Lewis Robinson Walker Young Allen King Wright Scott Torres Nguyen
    Hill Flores Green Adams Nelson Baker Hall Rivera Campbell Mitchell Carter Roberts Gomez Phillips Evans Turner Diaz Parker Cruz Edwards
    Collins Reyes Stewart Morris Morales Murphy Cook Rogers Gutierrez Ortiz Morgan Cooper Peterson Bailey Reed Kelly Howard Ramos Kim Cox
    Ward Richardson Watson Brooks Chavez Wood James Bennett Gray Mendoza Ruiz Hughes Price Alvarez Castillo Sanders Patel Myers Long Ross
    Foster Jimenez Powell Jenkins Perry Russell Sullivan Bell Coleman Butler Henderson Barnes Gonzales Fisher Vasquez Simmons Romero Jordan
    Patterson Alexander Hamilton Graham Reynolds Griffin Wallace Moreno West Cole Hayes Bryant Herrera Gibson Ellis Tran Medina Aguilar
    Stevens Murray Ford Castro Marshall Owens Harrison Fernandez McDonald Woods Washington Kennedy Wells Vargas Henry Chen Freeman Webb
    Tucker Guzman Burns Crawford Olson Simpson Porter Hunter Gordon Mendez Silva Shaw Snyder Mason Dixon Munoz Hunt Hicks Holmes Palmer
    Wagner Black Robertson Boyd Rose Stone Salazar Fox Warren Mills Meyer Rice Schmidt Garza Daniels Ferguson Nichols Stephens Soto Weaver
    Ryan Gardner Payne Grant Dunn Kelley Spencer Hawkins Arnold Pierce Vazquez Hansen Peters Santos Hart Bradley Knight Elliott Cunningham";

impl NameDetector {
    /// Creates a detector with dictionaries of your own. Letter case does not matter.
    pub fn new<'a>(given: impl IntoIterator<Item = &'a str>, surnames: impl IntoIterator<Item = &'a str>) -> Self {
        let set = |words: &mut dyn Iterator<Item = &'a str>| words.map(str::to_lowercase).collect();
        Self { given: set(&mut given.into_iter()), surnames: set(&mut surnames.into_iter()) }
    }

    /// Creates a detector with frequent names of the United States: a few hundred of each kind, which find only a
    /// part of the names in a text.
    pub fn defaults() -> Self {
        Self::new(GIVEN.split_whitespace(), SURNAMES.split_whitespace())
    }
}

impl fmt::Debug for NameDetector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (given, surnames) = (self.given.len(), self.surnames.len());
        f.debug_struct("NameDetector").field("given", &given).field("surnames", &surnames).finish()
    }
}

detects_by!(NameDetector, |names, text, _| {
    let words = capitalized_words(text);
    let is = |set: &HashSet<String>, word: &Range<usize>| set.contains(&text[word.clone()].to_lowercase());
    let (mut hits, mut at) = (Vec::new(), 0);
    // Index up to which no surname follows: a series of given names without surname is read once and not again from
    // each of its words, which keeps the time linear.
    let mut without_surname = 0;
    while at < words.len() {
        let first = &words[at];
        let (given, surname) = (is(&names.given, first), is(&names.surnames, first));
        if !given && !surname {
            at += 1;
            continue;
        }
        // Given names and initials, and the surname after them.
        let mut last = at;
        let mut whole = None;
        while given
            && at >= without_surname
            && last + 1 < words.len()
            && are_adjacent(text, &words[last], &words[last + 1])
        {
            last += 1;
            steps(words[last].len());
            let word = &words[last];
            if is(&names.surnames, word) {
                whole = Some(last);
            }
            let initial = text[word.clone()].chars().nth(1).is_none();
            if !initial && !is(&names.given, word) {
                break;
            }
        }
        without_surname = without_surname.max(last);
        let end = whole.unwrap_or(at);
        let likelihood = if whole.is_some() { Likelihood::Likely } else { Likelihood::Possible };
        hits.push(PiiHit::new(EntityType::PERSON_NAME, first.start..words[end].end, likelihood));
        at = end + 1;
    }
    hits
});

/// Returns the words of a text that begin with a capital letter.
fn capitalized_words(text: &str) -> Vec<Range<usize>> {
    let (mut words, mut start) = (Vec::new(), None);
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        let inside = c.is_alphabetic() || (start.is_some() && matches!(c, '\'' | '’' | '-'));
        match (inside, start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                let end = from + text[from..at].trim_end_matches(['\'', '’', '-']).len();
                words.push(from..end);
                start = None;
            }
            _ => {}
        }
    }
    words.retain(|word| text[word.clone()].starts_with(char::is_uppercase));
    words
}

/// Returns whether two words can be parts of one name: one space is between them, or a point and a space after an
/// initial.
fn are_adjacent(text: &str, a: &Range<usize>, b: &Range<usize>) -> bool {
    let initial = text[a.clone()].chars().nth(1).is_none();
    matches!(&text[a.end..b.start], " ") || (initial && &text[a.end..b.start] == ". ")
}
