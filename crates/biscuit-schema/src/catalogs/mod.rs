//! Schemas of Glue, CloudFormation and Avro: conversion from and to contracts.

pub(crate) mod avro;
pub(crate) mod cloudformation;
pub(crate) mod glue;
